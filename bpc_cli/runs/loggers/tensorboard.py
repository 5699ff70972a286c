"""TensorBoard's event files."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from bpc_cli.evaluation.metrics import tested_metrics
from bpc_cli.evaluation.statistics import MetricsLine
from bpc_cli.runs.loggers.metrics import metrics_by_iteration
from bpc_cli.runs.loggers.tracked_run import TrackedRun, flat_options


class TensorBoard:
    """Writes event files, without TensorFlow.

    What an earlier process wrote of iterations that are to come again is not shown. The config and
    the row of the table of hyperparameters are written once; the row's metrics are the last ones
    among the scalars.

    Args:
        run: the run, in whose directory they go to the folder `tensorboard`.
    """

    def __init__(self, run: TrackedRun):
        from tensorboardX import SummaryWriter
        from tensorboardX.summary import hparams

        folder = run.directory / "tensorboard"
        n_earlier = len(list(folder.glob("events.*")))
        is_new = n_earlier == 0
        self._writer = SummaryWriter(
            str(folder),
            purge_step=None if is_new else run.first,
            filename_suffix=f".{n_earlier}",  # else one of the same second would be replaced
        )
        assert self._writer.file_writer is not None  # as it writes to a disk
        self._add_summary = self._writer.file_writer.add_summary
        options = flat_options(run.options)
        tested = tested_metrics(
            has_label=options.get("mode") != "unsupervised",
            has_latent=bool(options.get("model.latent")),
        )
        *beginning, self._end = hparams(options, dict.fromkeys(metric.name for metric in tested))
        if is_new:
            for summary in beginning:
                self._add_summary(summary)
            self._writer.add_text("config", f"```yaml\n{run.config}```", 0)
            self._writer.flush()

    def lines(self, lines: Sequence[MetricsLine]) -> None:
        """Write scalars; of several seeds each under its own name."""
        for iteration, numbers in metrics_by_iteration(lines).items():
            for name, value in numbers.items():
                self._writer.add_scalar(name, value, iteration)

    def test_point(
        self,
        iteration: int,
        picture: Path,
        histograms: Callable[[], Mapping[str, np.ndarray]],
    ) -> None:
        """Write the sample grid and histograms."""
        if picture.exists():
            with Image.open(picture) as grid:
                pixels = np.asarray(grid.convert("RGB"))
            self._writer.add_image("samples", pixels, iteration, dataformats="HWC")
        for name, values in histograms().items():
            self._writer.add_histogram(name, values, iteration)
        self._writer.flush()

    def close(self, status: str) -> None:
        """Write what is not written yet, and that the run has finished, if so."""
        if status == "finished":
            self._add_summary(self._end)
        self._writer.close()
