"""Where a run starts: at its own newest checkpoint, at another run's, or at iteration 1."""

from pathlib import Path
from typing import Any, NamedTuple

from bpc_cli.errors import UserError
from bpc_cli.options.check import changed_options, check_saved_config
from bpc_cli.options.schema import TrainConfig
from bpc_cli.runs.checkpoint import Checkpoint, open_checkpoint
from bpc_cli.runs.directory import METRICS, refuse_links_out


class Start(NamedTuple):
    """What a run goes on from.

    Attributes:
        checkpoint: the state to go on from; None before the first iteration.
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


def find_start(directory: Path, config: TrainConfig) -> Start:
    """Find what a run goes on from: what its directory holds, else what `resume` names.

    Raises:
        UserError: if the run was made with options that may not change, or nothing of it can be
            read, or its metrics lack lines.
    """
    if any((directory / "checkpoints").glob("*.ckpt")):
        return _go_on_from(directory, directory, config)
    if config.resume is not None:
        return _go_on_from(Path(config.resume).expanduser(), directory, config)
    if (directory / METRICS).exists():
        return Start(notices=(f"{directory} holds a run without a checkpoint: it starts anew",))
    return Start()


def check_fit(
    start: Start, data_set: str, versions: dict[str, str], device: str
) -> tuple[str, ...]:
    """Check that a run goes on with the data set it began with, and compare software and device.

    Returns:
        A line of warning, if software or device are others: the run then goes on exactly but for
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
            f"{data_set}: name the data set it was trained on"
        )
    now = versions | {"device": device}
    changed = [
        f"{name} (was {header['versions'].get(name)}, now {now[name]})"
        for name in now
        if header["versions"].get(name) != now[name]
    ]
    if not changed:
        return ()
    return (f"going on with other {', '.join(changed)}: exact only up to rounding",)


def _go_on_from(source: Path, directory: Path, config: TrainConfig) -> Start:
    checkpoint, warning = open_checkpoint(source)
    header = checkpoint.header
    if not _tells_of_its_run(header):
        raise UserError(f"{checkpoint.path} does not say how to go on: it can only be evaluated")
    earlier = check_saved_config(header["config"], checkpoint.path)
    if changed := changed_options(earlier, config):
        raise UserError(
            f"{source} was trained with other options: {', '.join(changed)}; give the same, or "
            "another hydra.run.dir"
        )
    notices = [f"WARNING: {warning}"] if warning else []
    notices.append(f"resumed from {checkpoint.path} after iteration {header['iteration']}")
    run = source if source.is_dir() else checkpoint.path.resolve().parent.parent
    refuse_links_out(run)
    metrics, n_bytes = run / METRICS, header["metrics_bytes"]
    if metrics.is_file() and metrics.stat().st_size >= n_bytes:
        return Start(checkpoint, metrics, n_bytes, tuple(notices))
    lacking = f"{metrics} lacks lines that were there when {checkpoint.path.name} was saved"
    if source == directory:
        raise UserError(f"{lacking}: resume={checkpoint.path} goes on in a new directory")
    notices.append(f"WARNING: {lacking}: metrics begin after the checkpoint")
    return Start(checkpoint, None, 0, tuple(notices))


def _tells_of_its_run(header: dict[str, Any]) -> bool:
    kinds = {"metrics_bytes": int, "seconds": dict, "versions": dict, "data_set": str}
    return header["iteration"] > 0 and all(type(header.get(k)) is kinds[k] for k in kinds)
