"""How many steps to run before Python looks up again."""

from collections.abc import Iterable

CHUNK_SECONDS = 5.0
_MOST_STEPS = 1_000


def chunk_capacity(n_iters: int, test_every: int) -> int:
    """Choose how many steps a compiled chunk has room for."""
    return min(n_iters, test_every, _MOST_STEPS)


def next_stop(
    iteration: int,
    n_iters: int,
    multiples_of: Iterable[int],
    capacity: int,
    seconds_per_step: float | None,
    longest: float = CHUNK_SECONDS,
) -> int:
    """Choose the last iteration of the chunk that follows `iteration`.

    That is the next multiple of any number given, or `n_iters`, or as far as `capacity` and time
    allow: a signal waits for the running chunk.

    Args:
        iteration: the last iteration done; 0 before the first.
        n_iters: the last iteration of the run.
        multiples_of: the distances of test points and checkpoints, in iterations.
        capacity: the most steps of a chunk.
        seconds_per_step: how long a step takes; None before the first, which is run alone.
        longest: the most seconds of a chunk; `CHUNK_SECONDS` at most.
    """
    stop = min([n_iters, *((iteration // every + 1) * every for every in multiples_of)])
    steps = 1
    if seconds_per_step is not None:
        steps = int(min(longest, CHUNK_SECONDS) / max(seconds_per_step, 1e-9))
    return min(stop, iteration + max(1, min(steps, capacity)))
