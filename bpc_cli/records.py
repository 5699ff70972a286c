"""What a training run records: metrics lines, test points, and how it ended."""

import contextlib
import dataclasses
import math
import os
import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bpc_cli.checkpoint import copy_checkpoint, save_checkpoint
from bpc_cli.config import TrainConfig
from bpc_cli.data import Dataset
from bpc_cli.errors import UserError
from bpc_cli.learning import StepMetrics, TrainState
from bpc_cli.memory import peak_memory
from bpc_cli.metrics import NetworkTest
from bpc_cli.plots import load_in_background, save_curves, save_sample_grid
from bpc_cli.rundir import RunDirectory, git_commit
from bpc_cli.timing import PhaseClock

_PACKAGES = ("bpc-cli", "jax", "jaxlib", "equinox", "optax", "numpy", "hydra-core")


class DivergedError(UserError):
    """A loss, an energy or a weight that is no longer finite."""


class Records:
    """Writes what happens in a training run to its directory.

    Args:
        run: the run's directory.
        clock: where the run's time goes.
        config: the run's checked config.
        dataset: the data set really used.
    """

    def __init__(self, run: RunDirectory, clock: PhaseClock, config: TrainConfig, dataset: Dataset):
        self.clock = clock
        self._run = run
        self._config = config
        self._dataset = dataset
        self._pending: list[dict[str, Any]] = []  # metrics lines since the last test point
        self._to_first_step: float | None = None
        self._final: dict[str, Any] | None = None
        self._best: dict[str, Any] | None = None

    @contextlib.contextmanager
    def outcome(self) -> Iterator[None]:
        """Write curves and summary at the end of a `with` block, however the training ended."""
        self.clock.end_start_up()
        status = "failed"
        try:
            yield
            status = "finished"
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        except DivergedError:
            status = "diverged"
            raise
        finally:
            with self.clock.phase("write"):
                self._write_pending()
                self._draw_curves()
            self._run.write_summary(self._summary(status))
        self._run.say(self._closing_line())

    def steps(self, first: int, metrics: StepMetrics, *, weights_are_finite: bool) -> None:
        """Note the metrics of a chunk of steps that began at iteration `first`.

        Raises:
            DivergedError: naming the first iteration at which a loss, an energy or a weight is not
                finite; the lines up to it are kept.
        """
        # One transfer for the whole chunk.
        columns = {
            name: np.asarray(column, np.float64)
            for name, column in vars(jax.device_get(metrics)).items()
        }
        per_epoch = len(self._dataset.train_images) // self._config.batch_size
        seconds = self.clock.elapsed
        if self._to_first_step is None:
            self._to_first_step = seconds - self.clock.seconds["train"]
        n_steps = len(columns["gen_loss"])
        for i in range(n_steps):
            iteration = first + i
            values = {name: float(column[i]) for name, column in columns.items()}
            broken = [name for name, value in values.items() if not math.isfinite(value)]
            if broken or iteration % self._config.log_every == 0 or i == n_steps - 1:
                self._pending.append(
                    {
                        "iteration": iteration,
                        "epoch": (iteration - 1) // per_epoch,
                        "seconds": seconds,
                        **values,
                        "test_accuracy": None,
                        "generation_error": None,
                    }
                )
            if broken:
                raise self._diverged(iteration, broken)
        if not weights_are_finite:
            raise self._diverged(first + n_steps - 1, ["weights"])

    def test_point(self, iteration: int, test: NetworkTest, state: TrainState) -> None:
        """Record a test: console line, metrics, sample grid, and the checkpoints last and best."""
        is_first = self._final is None
        line = self._pending[-1]
        line |= {"test_accuracy": test.accuracy, "generation_error": test.generation_error}
        self._final = line
        is_best = self._best is None or test.accuracy > self._best["test_accuracy"]
        if is_best:
            self._best = line
        self._run.say(
            f"Iter {iteration}, gen loss={line['gen_loss']:.6f}, "
            f"amort loss={line['amort_loss']:.6f}, avg amort test accuracy={test.accuracy:.2f}"
        )
        with self.clock.phase("write"):
            self._write_pending()
            save_sample_grid(
                self._run.samples / f"iteration_{iteration:07d}.png",
                test.drawn,
                test.class_means,
                self._dataset.image_shape,
                self._dataset.class_names,
                f"{self._dataset.name}, iteration {iteration}",
            )
            last = self._run.checkpoints / "last.ckpt"
            save_checkpoint(last, state, self._header(iteration))
            if is_best:
                copy_checkpoint(last, self._run.checkpoints / "best.ckpt")
        if is_first:
            load_in_background()

    def _diverged(self, iteration: int, broken: list[str]) -> DivergedError:
        kept = "no checkpoint had been saved yet"
        if self._final is not None:
            kept = f"the state of iteration {self._final['iteration']} is in checkpoints/last.ckpt"
        return DivergedError(
            f"training diverged: at iteration {iteration} {', '.join(broken)} "
            f"{'is' if len(broken) == 1 else 'are'} no longer finite; "
            f"lower optim.param_lr or optim.activity_lr ({kept})"
        )

    def _header(self, iteration: int) -> dict[str, Any]:
        return {
            "config": dataclasses.asdict(self._config),
            "iteration": iteration,
            "data_set": self._dataset.name,
            "image_shape": list(self._dataset.image_shape),
            "class_names": list(self._dataset.class_names),
        }

    def _write_pending(self) -> None:
        self._run.log_metrics(self._pending)
        self._pending = []

    def _draw_curves(self) -> None:
        lines = self._run.read_metrics()
        if lines:
            weight = f"forward_energy_weight={self._config.forward_energy_weight:g}"
            title = f"{self._dataset.name}, {weight}, seed={self._config.seed}"
            save_curves(self._run.path / "curves.png", lines, title)

    def _closing_line(self) -> str:
        return (
            f"{self._dataset.name}: test accuracy {self._final['test_accuracy']:.2f} %, "
            f"generation error {self._final['generation_error']:.4f} (RMSE, pixels in [0, 1]); "
            f"everything is in {os.path.relpath(self._run.path)}"
            if self._final
            else f"everything is in {os.path.relpath(self._run.path)}"
        )

    def _summary(self, status: str) -> dict[str, Any]:
        return {
            "status": status,
            "final": self._final,
            "best": self._best,
            "data": {
                "name": self._dataset.name,
                "train_examples": len(self._dataset.train_images),
                "test_examples": len(self._dataset.test_images),
                "fallback": self._dataset.fallback,
            },
            "seconds": self.clock.seconds
            | {"to_first_step": self._to_first_step, "total": self.clock.elapsed},
            "peak_memory_mib": round(peak_memory() / 2**20),
            "versions": {
                "python": platform.python_version(),
                **{package: version(package) for package in _PACKAGES},
            },
            "device": str(jax.devices()[0].device_kind),
            "git_commit": git_commit(Path(__file__).parent),
        }
