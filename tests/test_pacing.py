"""Chunks: they end where they must, and are bounded in steps and in time."""

from hypothesis import given
from hypothesis import strategies as st

from bpc_cli.runs.pacing import CHUNK_SECONDS, chunk_capacity, next_stop

numbers = st.integers(1, 3_000)


@given(numbers, st.lists(numbers, min_size=1, max_size=3), st.floats(1e-6, 100), st.floats(0.1, 60))
def test_every_stop_is_hit_and_no_chunk_is_too_long(n_iters, stops, seconds_per_step, longest):
    capacity = chunk_capacity(n_iters, stops[0])
    iteration, hit, speed = 0, set(), None
    while iteration < n_iters:
        last = next_stop(iteration, n_iters, stops, capacity, speed, longest)
        steps = last - iteration
        assert 1 <= steps <= capacity
        assert steps == 1 or steps * seconds_per_step <= min(longest, CHUNK_SECONDS)
        iteration, speed = last, seconds_per_step
        hit.add(iteration)
    wanted = {i for i in range(1, n_iters + 1) if any(i % every == 0 for every in stops)}
    assert wanted | {n_iters} <= hit


def test_the_first_step_is_run_alone_to_time_it():
    assert next_stop(0, 300, [50], 50, None) == 1
    assert next_stop(1, 300, [50], 50, 1e-3) == 50
    assert next_stop(50, 300, [50], 50, 1.0) == 55
