"""A run's figures: sample grids and curves, which end no run if they cannot be drawn."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bpc_cli.evaluation.network_tests import NetworkTest, rows_of_tests
from bpc_cli.evaluation.statistics import MetricsLine
from bpc_cli.plots.curves import save_curves
from bpc_cli.plots.sample_grids import save_sample_grid
from bpc_cli.runs.directory import RunDirectory
from bpc_cli.runs.plan import Plan
from bpc_cli.runs.summary import which_seeds


class Figures:
    """Draws what a run shows; it warns of the first figure that cannot be drawn, and of no other.

    Args:
        run: the run's directory.
        plan: what the run is to do.
    """

    def __init__(self, run: RunDirectory, plan: Plan):
        self._run = run
        self._plan = plan
        self._has_failed = False

    def draw_samples(self, iteration: int, tests: Sequence[NetworkTest]) -> Path:
        """Draw the sample grid of a test point, a test per seed, and return its path.

        Earlier grids are removed unless the run keeps them.
        """
        earlier = list(self._run.samples.glob("iteration_*"))
        path = self._run.samples / f"iteration_{iteration:07d}.png"
        dataset = self._plan.dataset
        self._draw(
            save_sample_grid,
            path,
            *rows_of_tests(tests, self._plan.seeds),
            dataset.image_shape,
            dataset.class_names,
            f"{dataset.name}, iteration {iteration}",
            self._plan.figure_formats,
        )
        if not self._plan.save_samples:
            for picture in earlier:
                if picture.stem != path.stem:
                    with contextlib.suppress(OSError):
                        picture.unlink()
        return path

    def draw_curves(self, lines: Sequence[MetricsLine]) -> None:
        """Draw losses, energy and accuracy from all metrics lines."""
        title = f"{self._plan.dataset.name}, {self._plan.title}, {which_seeds(lines)}"
        path = self._run.path / "curves.png"
        formats = self._plan.figure_formats
        self._draw(save_curves, path, lines, title, self._plan.label_loss, formats)

    def _draw(self, save_picture: Callable[..., None], path: Path, *arguments: Any) -> None:
        try:
            save_picture(path, *arguments)
        except Exception as error:
            if not self._has_failed:
                self._run.warn(f"{path.name} could not be drawn ({error}); the run continues")
            self._has_failed = True
            for half_made in path.parent.glob(f"{path.stem}.*"):
                with contextlib.suppress(OSError):
                    half_made.unlink()
