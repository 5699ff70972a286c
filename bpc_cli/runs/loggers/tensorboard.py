"""TensorBoard's event files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from bpc_cli.evaluation.statistics import MetricsLine
from bpc_cli.runs.loggers.metrics import metrics_by_iteration


class TensorBoard:
    """Writes event files, without TensorFlow.

    Args:
        folder: where they go.
        first: the first iteration that is to come; what an earlier process wrote from there on is
            not shown.
    """

    def __init__(self, folder: Path, first: int):
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=first if first > 1 else None)

    def lines(self, lines: Sequence[MetricsLine]) -> None:
        """Write scalars; of several seeds each under its own name."""
        for iteration, numbers in metrics_by_iteration(lines).items():
            for name, value in numbers.items():
                self._writer.add_scalar(name, value, iteration)

    def test_point(
        self, iteration: int, picture: Path, histograms: Mapping[str, np.ndarray]
    ) -> None:
        """Write the sample grid and histograms."""
        if picture.exists():
            with Image.open(picture) as grid:
                pixels = np.asarray(grid.convert("RGB"))
            self._writer.add_image("samples", pixels, iteration, dataformats="HWC")
        for name, values in histograms.items():
            self._writer.add_histogram(name, values, iteration)
        self._writer.flush()

    def close(self) -> None:
        """Write what is not written yet."""
        self._writer.close()
