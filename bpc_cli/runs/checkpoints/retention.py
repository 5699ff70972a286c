"""Which checkpoints a run keeps, and when: last, previous, best, and others if asked."""

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path

from bpc_cli.core.learning import TrainState
from bpc_cli.errors import UserError
from bpc_cli.files import JsonObject
from bpc_cli.runs.checkpoints.checkpoint import (
    Checkpoint,
    copy_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from bpc_cli.runs.plan import Schedule
from bpc_cli.runs.resume import Start


class Checkpoints:
    """A run's checkpoints.

    Args:
        folder: where they are.
        schedule: when they are saved and which are kept.
        start: what the run resumes.

    Attributes:
        saved: the iteration of the newest one; None before the first.
    """

    def __init__(self, folder: Path, schedule: Schedule, start: Start):
        self.saved = start.iteration or None
        self._saved_at = time.monotonic()
        self._last = folder / "last.ckpt"
        self._schedule = schedule

    def is_due(self, iteration: int) -> bool:
        """Tell whether the schedule asks for one now."""
        distances = (self._schedule.save_every, self._schedule.keep_every)
        by_number = any(every is not None and iteration % every == 0 for every in distances)
        return by_number or time.monotonic() - self._saved_at >= self._schedule.save_seconds

    def save(self, iteration: int, state: TrainState, header: JsonObject, *, is_best: bool) -> None:
        """Save the state after an iteration, and keep the checkpoint before it.

        Raises:
            OSError: if it cannot be written; the checkpoints before are then as they were.
        """
        if self._last.exists():
            copy_checkpoint(self._last, self._last.with_name("previous.ckpt"))
        save_checkpoint(self._last, state, header)
        if is_best:
            copy_checkpoint(self._last, self._best)
        self._keep(iteration)
        self.saved, self._saved_at = iteration, time.monotonic()

    def take_over(self, start: Start, qualities: Mapping[int, float]) -> int | None:
        """Take over an earlier process's checkpoints, as if it had not ended.

        That may have been between any two renames, of a save or of another's taking over: `best` is
        set right by what the metrics say. It comes before `last`, with which a directory has
        something of its own to resume (see `find_start`).

        Args:
            start: what the run resumes.
            qualities: how good each test point so far was, by iteration; higher is better.

        Returns:
            The iteration of the best test point that a checkpoint is left of; None without any.
        """
        if start.checkpoint is None or start.metrics is None:
            return None
        left = _checkpoints_of(qualities, start.checkpoint, start.metrics.parent / "checkpoints")
        best = max(sorted(left), key=lambda iteration: qualities[iteration], default=None)
        if best is not None:
            copy_checkpoint(left[best], self._best)
        if start.checkpoint.path != self._last:
            copy_checkpoint(start.checkpoint.path, self._last)
        if best is None:
            self._best.unlink(missing_ok=True)
        self._keep(start.iteration)
        return best

    @property
    def _best(self) -> Path:
        return self._last.with_name("best.ckpt")

    def _keep(self, iteration: int) -> None:
        """Give the last checkpoint a name of its own, if the schedule asks for that."""
        keep_every = self._schedule.keep_every
        if keep_every is not None and iteration % keep_every == 0:
            copy_checkpoint(self._last, self._last.with_name(_kept_name(iteration)))


def _kept_name(iteration: int) -> str:
    return f"iteration_{iteration:07d}.ckpt"


def _checkpoints_of(
    accuracies: Mapping[int, float], newest: Checkpoint, folder: Path
) -> dict[int, Path]:
    """Find checkpoints of test points, by iteration: the best one, and others at hand."""
    left = {newest.header["iteration"]: newest.path}
    names = ["best.ckpt"]
    if accuracies:
        names.append(_kept_name(max(sorted(accuracies), key=lambda i: accuracies[i])))
    for name in names:
        with contextlib.suppress(UserError):
            left.setdefault(read_checkpoint(folder / name).header["iteration"], folder / name)
    return {iteration: path for iteration, path in left.items() if iteration in accuracies}
