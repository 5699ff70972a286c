"""Weights & Biases, by default without a network."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from bpc_cli.evaluation.statistics import MetricsLine
from bpc_cli.files import JsonObject
from bpc_cli.runs.loggers.lasting_id import keep_id, read_id
from bpc_cli.runs.loggers.metrics import metrics_by_iteration
from bpc_cli.runs.loggers.tracked_run import TrackedRun

_BINS = 64
_ID_LETTERS = 16


class WeightsAndBiases:
    """Logs to Weights & Biases, by default without a network.

    What waits for `wandb sync`, and the run's id there, are kept in the run's directory.

    Args:
        run: the run.
        project: the project there.
        mode: "offline" or "online".
    """

    def __init__(self, run: TrackedRun, project: str, mode: str):
        import wandb

        path = run.directory / "wandb_id"
        self._wandb = wandb
        self._run = wandb.init(
            project=project,
            mode=mode,  # pyright: ignore[reportArgumentType]
            dir=str(run.directory),
            name=run.name,
            group=run.sweep,
            config=dict(run.options),
            id=read_id(path, _ID_LETTERS) or keep_id(path, secrets.token_hex(_ID_LETTERS // 2)),
            resume="allow",
            settings=wandb.Settings(silent=True, console="off"),
        )

    def lines(self, lines: Sequence[MetricsLine]) -> None:
        """Log the lines of each iteration together; of several seeds each under its own name."""
        for iteration, numbers in metrics_by_iteration(lines).items():
            self._run.log(numbers, step=iteration)

    def test_point(
        self,
        iteration: int,
        picture: Path,
        histograms: Callable[[], Mapping[str, np.ndarray]],
    ) -> None:
        """Log the sample grid and histograms."""
        logged: JsonObject = {
            name: self._wandb.Histogram(np_histogram=np.histogram(values, _BINS))
            for name, values in histograms().items()
        }
        if picture.exists():
            logged["samples"] = self._wandb.Image(str(picture))
        self._run.log(logged, step=iteration)

    def close(self, status: str) -> None:
        """End the run there."""
        self._run.finish(exit_code=0 if status == "finished" else 1)
