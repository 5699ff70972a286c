"""What a run resumes: its own newest checkpoint, another run's, or nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bpc_cli.core.ensembles import stack, take
from bpc_cli.core.learning import TrainState
from bpc_cli.errors import UserError
from bpc_cli.runs.checkpoints.checkpoint import Checkpoint, open_checkpoint, restore
from bpc_cli.runs.checkpoints.header import describes_its_run
from bpc_cli.runs.directory import METRICS, refuse_links_out
from bpc_cli.runs.metrics_lines import what_is_wrong


class Start(NamedTuple):
    """What a run resumes.

    Attributes:
        checkpoint: the state to resume; None before the first iteration.
        metrics: the file whose first lines are the run's own so far.
        metrics_bytes: how much of that file had been written when the checkpoint was.
        notices: lines to tell the user.
    """

    checkpoint: Checkpoint | None = None
    metrics: Path | None = None
    metrics_bytes: int = 0
    notices: tuple[str, ...] = ()

    @property
    def iteration(self) -> int:
        """The last iteration done; 0 before the first."""
        return self.checkpoint.header["iteration"] if self.checkpoint else 0


def find_start(
    directory: Path, other: Path | None, list_changes: Callable[[object, Path], list[str]]
) -> Start:
    """Find what a run resumes: what its directory holds, else another run or checkpoint.

    A directory whose process was killed while it took over another's checkpoints has no last one of
    its own yet, and takes them over again.

    Args:
        directory: the run's.
        other: a run directory or a checkpoint to resume where its own directory holds none.
        list_changes: lists the options, in words, that may not change and do; given the config that
            a checkpoint was saved with, and the checkpoint's path.

    Raises:
        UserError: if the run was made with options that may not change, or nothing of it can be
            read, or its metrics are not what they were; its directory is then as it was.
    """
    names = {path.name for path in (directory / "checkpoints").glob("*.ckpt")}
    if {"last.ckpt", "previous.ckpt"} & names or (names and other is None):
        return _resume(directory, directory, list_changes)
    if other is not None:
        return _resume(other, directory, list_changes)
    if (directory / METRICS).exists():
        return Start(
            notices=(f"{directory} holds a run without a checkpoint: training is initialised anew",)
        )
    return Start()


def check_fit(
    start: Start, data_set: str, versions: dict[str, str], device: str
) -> tuple[str, ...]:
    """Check that a run resumes with the data set it began with, and compare software and device.

    Returns:
        A line of warning, if software or device are others: the run then resumes exactly but for
        rounding.

    Raises:
        UserError: if the data set is another one.
    """
    if start.checkpoint is None:
        return ()
    header = start.checkpoint.header
    if header["data_set"] != data_set:
        raise UserError(
            f"{start.checkpoint.path} was trained on {header['data_set']}, and data=... gives "
            f"{data_set}: choose the data set that it was trained on"
        )
    now = versions | {"device": device}
    changed = [
        f"{name} (was {header['versions'].get(name)}, now {now[name]})"
        for name in now
        if header["versions"].get(name) != now[name]
    ]
    if not changed:
        return ()
    return (f"resuming with other {', '.join(changed)}: exact only up to rounding",)


def resume_states(start: Start, fresh: TrainState, n_seeds: int) -> TrainState:
    """Restore the states of a run's models, stacked; fresh ones where it resumes nothing.

    Raises:
        UserError: if the checkpoint holds models of another shape.
    """
    if start.checkpoint is None:
        return fresh
    if n_seeds > 1:
        return restore(start.checkpoint, fresh)
    return stack([restore(start.checkpoint, take(fresh, 0))])


def _resume(
    source: Path, directory: Path, list_changes: Callable[[object, Path], list[str]]
) -> Start:
    checkpoint, warning = open_checkpoint(source)
    header = checkpoint.header
    if not describes_its_run(header):
        raise UserError(f"{checkpoint.path} cannot be resumed: it can only be evaluated")
    if changed := list_changes(header["config"], checkpoint.path):
        raise UserError(
            f"{source} was trained with other options: {', '.join(changed)}; give the same, or "
            "another hydra.run.dir"
        )
    notices = [f"WARNING: {warning}"] if warning else []
    notices.append(f"resumed from {checkpoint.path} after iteration {header['iteration']}")
    run = source if source.is_dir() else checkpoint.path.resolve().parent.parent
    refuse_links_out(run)
    metrics, n_bytes = run / METRICS, header["metrics_bytes"]
    wrong = what_is_wrong(metrics, n_bytes, header.get("metrics_sha256"))
    if wrong is None:
        return Start(checkpoint, metrics, n_bytes, tuple(notices))
    damage = f"{metrics} {wrong} that were there when {checkpoint.path.name} was saved"
    if source == directory:
        raise UserError(f"{damage}: resume={checkpoint.path} resumes it in a new directory")
    notices.append(f"WARNING: {damage}: there are metrics from the checkpoint on alone")
    return Start(checkpoint, None, 0, tuple(notices))
