"""Which checkpoints a run keeps, and when: last, previous, best, and others if asked."""

import contextlib
import time
from pathlib import Path

from bpc_cli.core.learning import TrainState
from bpc_cli.errors import UserError
from bpc_cli.files import JsonObject
from bpc_cli.runs.checkpoint import copy_checkpoint, read_checkpoint, save_checkpoint
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
        self._give_names(iteration, is_best=is_best)
        self.saved, self._saved_at = iteration, time.monotonic()

    def take_over(self, start: Start, best: int | None) -> bool:
        """Take over an earlier process's checkpoints, as if it had not ended.

        Args:
            start: what the run resumes.
            best: the iteration of its best test point.

        Returns:
            Whether the best checkpoint is there.
        """
        if start.checkpoint is None or start.metrics is None:
            return True
        if start.checkpoint.path != self._last:
            copy_checkpoint(start.checkpoint.path, self._last)
        # A kill may have come between saving a checkpoint and giving it its other names.
        self._give_names(start.iteration, is_best=best == start.iteration)
        if best in (None, start.iteration):
            return True
        earlier = start.metrics.parent / "checkpoints" / "best.ckpt"
        if not _is_of_iteration(earlier, best):
            return False
        copy_checkpoint(earlier, self._last.with_name("best.ckpt"))
        return True

    def _give_names(self, iteration: int, *, is_best: bool) -> None:
        keep_every = self._schedule.keep_every
        if is_best:
            copy_checkpoint(self._last, self._last.with_name("best.ckpt"))
        if keep_every is not None and iteration % keep_every == 0:
            copy_checkpoint(self._last, self._last.with_name(f"iteration_{iteration:07d}.ckpt"))


def _is_of_iteration(path: Path, iteration: int | None) -> bool:
    with contextlib.suppress(UserError):
        return read_checkpoint(path).header["iteration"] == iteration
    return False
