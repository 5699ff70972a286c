"""A run's pictures: sample grids and curves, which end no run if they cannot be drawn."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bpc_cli.data.datasets import Dataset
from bpc_cli.evaluation.classification import NetworkTest
from bpc_cli.options.schema import TrainConfig
from bpc_cli.plots import save_curves, save_sample_grid
from bpc_cli.runs.directory import RunDirectory
from bpc_cli.runs.summary import which_seeds


class Pictures:
    """Draws what a run shows; the first picture that cannot be drawn is told, and no other.

    Args:
        run: the run's directory.
        config: the run's checked config.
        dataset: the data set really used.
    """

    def __init__(self, run: RunDirectory, config: TrainConfig, dataset: Dataset):
        self._run = run
        self._config = config
        self._dataset = dataset
        self._fail = False

    def draw_samples(self, iteration: int, tests: Sequence[NetworkTest]) -> Path:
        """Draw the sample grid of a test point, a test per seed, and return its path.

        Earlier grids are removed unless the run keeps them.
        """
        earlier = list(self._run.samples.glob("iteration_*.png"))
        path = self._run.samples / f"iteration_{iteration:07d}.png"
        headings = ["generated"]
        if len(tests) > 1:
            headings = [f"seed {self._config.seed + k}" for k in range(len(tests))]
        self._draw(
            save_sample_grid,
            path,
            [(heading, test.drawn) for heading, test in zip(headings, tests, strict=True)],
            tests[0].class_means,
            self._dataset.image_shape,
            self._dataset.class_names,
            f"{self._dataset.name}, iteration {iteration}",
        )
        if not self._config.save_samples:
            for picture in earlier:
                if picture != path:
                    with contextlib.suppress(OSError):
                        picture.unlink()
        return path

    def draw_curves(self, lines: Sequence[dict[str, Any]]) -> None:
        """Draw losses, energy and accuracy from all metrics lines."""
        weight = f"forward_energy_weight={self._config.forward_energy_weight:g}"
        title = f"{self._dataset.name}, {weight}, {which_seeds(lines)}"
        label_loss = self._config.model.label_loss
        self._draw(save_curves, self._run.path / "curves.png", lines, title, label_loss)

    def _draw(self, save_picture: Callable[..., None], path: Path, *arguments: Any) -> None:
        try:
            save_picture(path, *arguments)
        except Exception as error:
            if not self._fail:
                self._run.warn(f"{path.name} could not be drawn ({error}); the run goes on")
            self._fail = True
            with contextlib.suppress(OSError):
                path.unlink()
