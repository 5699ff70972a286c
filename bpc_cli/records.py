"""What a training run records: metrics lines, test points, and how it ended."""

import contextlib
import dataclasses
import functools
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bpc_cli.checkpoint import copy_checkpoint, read_checkpoint, save_checkpoint
from bpc_cli.config import TrainConfig, checkpoint_distance
from bpc_cli.data import Dataset
from bpc_cli.errors import UserError
from bpc_cli.interrupts import Stopped
from bpc_cli.learning import StepMetrics, TrainState
from bpc_cli.memory import peak_memory
from bpc_cli.metrics import NetworkTest
from bpc_cli.plots import load_in_background, save_curves, save_sample_grid
from bpc_cli.resume import Start
from bpc_cli.rundir import RunDirectory, git_commit
from bpc_cli.timing import PhaseClock

_PACKAGES = ("bpc-cli", "jax", "jaxlib", "equinox", "optax", "numpy", "hydra-core")


class DivergedError(UserError):
    """A loss, an energy or a weight that is no longer finite."""


_STATUS = {Stopped: "interrupted", KeyboardInterrupt: "interrupted", DivergedError: "diverged"}


class Records:
    """Writes what happens in a training run to its directory.

    Args:
        run: the run's directory.
        clock: where the run's time goes.
        config: the run's checked config.
        dataset: the data set really used.
        start: what the run goes on from.
    """

    def __init__(
        self,
        run: RunDirectory,
        clock: PhaseClock,
        config: TrainConfig,
        dataset: Dataset,
        start: Start,
    ):
        self.clock = clock
        self._run = run
        self._config = config
        self._dataset = dataset
        self._start = start
        self._pending: list[dict[str, Any]] = []  # metrics lines since the last test point
        self._to_first_step: float | None = None
        self._pictures_fail = False
        tested = [line for line in run.read_metrics() if line["test_accuracy"] is not None]
        self._final = tested[-1] if tested else None
        self._best = max(tested, key=lambda line: line["test_accuracy"], default=None)
        self._saved = start.iteration or None  # the iteration of the last checkpoint
        self._saved_at = time.monotonic()

    @contextlib.contextmanager
    def outcome(self) -> Iterator[None]:
        """Write curves and summary at the end of a `with` block, however the training ended."""
        self.clock.end_start_up()
        self._go_on_from(self._start)
        try:
            yield
            self._conclude("finished")
        except BaseException as error:
            with contextlib.suppress(OSError):  # on a full disk, what can still be written
                self._conclude(_STATUS.get(type(error), "failed"))
            raise
        self._run.say(self._closing_line())

    def steps(
        self, first: int, last: int, metrics: StepMetrics, *, weights_are_finite: bool, test: bool
    ) -> None:
        """Note the metrics of a chunk, iterations `first` to `last`; a test may follow.

        Raises:
            DivergedError: naming the first iteration at which a loss, an energy or a weight is not
                finite; the lines up to it are kept.
        """
        # One transfer for the whole chunk.
        columns = {
            name: np.asarray(column[: last - first + 1], np.float64)
            for name, column in vars(jax.device_get(metrics)).items()
        }
        per_epoch = len(self._dataset.train_images) // self._config.batch_size
        seconds = self.clock.elapsed
        if self._to_first_step is None:
            self._to_first_step = seconds - self.clock.seconds["train"] - self._earlier
        for i, iteration in enumerate(range(first, last + 1)):
            values = {name: float(column[i]) for name, column in columns.items()}
            broken = [name for name, value in values.items() if not math.isfinite(value)]
            tested = test and iteration == last
            if broken or tested or iteration % self._config.log_every == 0:
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
            raise self._diverged(last, ["weights"])
        if not test:
            self._write_pending()

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
            self._draw(
                save_sample_grid,
                self._run.samples / f"iteration_{iteration:07d}.png",
                test.drawn,
                test.class_means,
                self._dataset.image_shape,
                self._dataset.class_names,
                f"{self._dataset.name}, iteration {iteration}",
            )
        self.checkpoint(iteration, state, is_best=is_best)
        if is_first:
            load_in_background()

    def checkpoint_is_due(self, iteration: int) -> bool:
        """Tell whether `checkpoint_every` or `keep_every` asks for a checkpoint now."""
        every, seconds = checkpoint_distance(self._config)
        kept = self._config.keep_every
        by_number = any(n is not None and iteration % n == 0 for n in (every, kept))
        return by_number or time.monotonic() - self._saved_at >= seconds

    def checkpoint(self, iteration: int, state: TrainState, *, is_best: bool = False) -> None:
        """Save the state after an iteration, and keep the checkpoint before it.

        Raises:
            OSError: if it cannot be written; the checkpoints and metrics before are then as they
                were.
        """
        with self.clock.phase("write"):
            last = self._run.checkpoints / "last.ckpt"
            if last.exists():
                copy_checkpoint(last, last.with_name("previous.ckpt"))
            save_checkpoint(last, state, self._header(iteration))
            self._name_checkpoint(iteration, last, is_best=is_best)
        self._saved, self._saved_at = iteration, time.monotonic()

    def _name_checkpoint(self, iteration: int, path: Path, *, is_best: bool) -> None:
        if is_best:
            copy_checkpoint(path, path.with_name("best.ckpt"))
        if self._config.keep_every is not None and iteration % self._config.keep_every == 0:
            copy_checkpoint(path, path.with_name(f"iteration_{iteration:07d}.ckpt"))

    def _go_on_from(self, start: Start) -> None:
        """Take over an earlier process's clock and checkpoints, as if it had not ended."""
        self._earlier = 0.0
        if start.checkpoint is None:
            return
        here = self.clock.elapsed - self.clock.seconds["train"]
        self.clock.add_earlier(start.checkpoint.header["seconds"])
        self._earlier = self.clock.elapsed - self.clock.seconds["train"] - here
        if start.metrics is None:
            return
        last, best = (self._run.checkpoints / f"{name}.ckpt" for name in ("last", "best"))
        if start.checkpoint.path != last:
            copy_checkpoint(start.checkpoint.path, last)
        # A kill may have come between saving a checkpoint and giving it its other names.
        is_best = self._best is not None and self._best["iteration"] == start.iteration
        self._name_checkpoint(start.iteration, last, is_best=is_best)
        earlier_best = start.metrics.parent / "checkpoints" / "best.ckpt"
        if is_best or self._best is None:
            return
        if _is_of_iteration(earlier_best, self._best["iteration"]):
            copy_checkpoint(earlier_best, best)
        else:
            self._best = None  # it is lost: the next test point is the best that there is

    def _diverged(self, iteration: int, broken: list[str]) -> DivergedError:
        kept = "no checkpoint had been saved yet"
        if self._saved is not None:
            kept = f"the state of iteration {self._saved} is in checkpoints/last.ckpt"
        error = DivergedError(
            f"training diverged: at iteration {iteration} {', '.join(broken)} "
            f"{'is' if len(broken) == 1 else 'are'} no longer finite; "
            f"lower optim.param_lr or optim.activity_lr ({kept})"
        )
        error.ends_sweep = self._config.on_divergence == "stop"
        return error

    def _header(self, iteration: int) -> dict[str, Any]:
        return {
            "config": dataclasses.asdict(self._config),
            "iteration": iteration,
            "metrics_bytes": self._run.sync_metrics(),
            "seconds": self.clock.seconds | {"total": self.clock.elapsed},
            "versions": software_versions() | {"device": device_kind()},
            "data_set": self._dataset.name,
            "image_shape": list(self._dataset.image_shape),
            "class_names": list(self._dataset.class_names),
        }

    def _write_pending(self) -> None:
        self._run.log_metrics(self._pending)
        self._pending = []

    def _conclude(self, status: str) -> None:
        with self.clock.phase("write"):
            self._write_pending()
            if lines := self._run.read_metrics():
                weight = f"forward_energy_weight={self._config.forward_energy_weight:g}"
                title = f"{self._dataset.name}, {weight}, seed={self._config.seed}"
                self._draw(save_curves, self._run.path / "curves.png", lines, title)
        self._run.write_summary(self._summary(status))

    def _draw(self, save_picture: Callable[..., None], path: Path, *arguments: Any) -> None:
        """Save a picture, or warn once that pictures cannot be saved: no run ends for that."""
        try:
            save_picture(path, *arguments)
        except Exception as error:
            if not self._pictures_fail:
                self._run.warn(f"{path.name} could not be drawn ({error}); the run goes on")
            self._pictures_fail = True
            with contextlib.suppress(OSError):
                path.unlink()

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
            "versions": software_versions(),
            "device": device_kind(),
            "git_commit": git_commit(Path(__file__).parent),
        }


def _is_of_iteration(path: Path, iteration: int) -> bool:
    with contextlib.suppress(UserError):
        return read_checkpoint(path).header["iteration"] == iteration
    return False


@functools.cache
def software_versions() -> dict[str, str]:
    """Name the versions that a run's numbers depend on."""
    packages = {package: version(package) for package in _PACKAGES}
    return {"python": platform.python_version(), **packages}


def device_kind() -> str:
    """Name the kind of device that JAX uses."""
    return str(jax.devices()[0].device_kind)
