"""What a training run records: metrics lines, test points, and how it ended."""

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from bpc_cli.core.ensembles import stack
from bpc_cli.core.learning import StepMetrics, TrainState
from bpc_cli.data.datasets import Dataset
from bpc_cli.data.pixels import pixel_scale
from bpc_cli.errors import UserError, one_line
from bpc_cli.evaluation.classification import NetworkTest
from bpc_cli.evaluation.statistics import mean_line
from bpc_cli.options.schema import TrainConfig
from bpc_cli.plots import load_in_background
from bpc_cli.runs.clock import PhaseClock
from bpc_cli.runs.directory import RunDirectory
from bpc_cli.runs.figures import Pictures
from bpc_cli.runs.loggers import Loggers, histograms_of
from bpc_cli.runs.resume import Start
from bpc_cli.runs.retention import Checkpoints
from bpc_cli.runs.signals import Stopped
from bpc_cli.runs.summary import (
    closing_words,
    device_kind,
    of_seeds,
    software_versions,
    summarise,
)


class DivergedError(UserError):
    """A loss, an energy or a weight that is no longer finite."""


class SweepEndedError(UserError):
    """Another run of the sweep failed, and was to end it."""


_STATUS = {
    Stopped: "interrupted",
    KeyboardInterrupt: "interrupted",
    SystemExit: "interrupted",  # by a cluster's launcher, which puts the job back into its queue
    DivergedError: "diverged",
    SweepEndedError: "interrupted",
}


class Records:
    """Writes what happens in a training run to its directory.

    Args:
        run: the run's directory.
        clock: where the run's time goes.
        config: the run's checked config.
        dataset: the data set really used.
        start: what the run goes on from.
        loggers: where else metrics go.
    """

    def __init__(
        self,
        run: RunDirectory,
        clock: PhaseClock,
        config: TrainConfig,
        dataset: Dataset,
        start: Start,
        loggers: Loggers,
    ):
        self.clock = clock
        self._loggers = loggers
        self._run = run
        self._config = config
        self._dataset = dataset
        self._start = start
        self._pending: list[dict[str, Any]] = []  # metrics lines since the last test point
        self._to_first_step: float | None = None
        self._pictures = Pictures(run, config, dataset)
        tested: dict[int, list[dict[str, Any]]] = {}  # by iteration, a line per seed
        for line in run.read_metrics():
            if line["test_accuracy"] is not None:
                tested.setdefault(line["iteration"], []).append(line)
        self._final = list(tested.values())[-1] if tested else None
        self._best = max(tested.values(), key=_mean_accuracy, default=None)
        self._checkpoints = Checkpoints(run.checkpoints, config, start)

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
                reason = None if isinstance(error, SystemExit) else one_line(error) or None
                self._conclude(_STATUS.get(type(error), "failed"), reason)
            raise
        where = f"everything is in {os.path.relpath(self._run.path)}"
        figures = [closing_words(self._dataset.name, self._final)] if self._final else []
        self._run.say("; ".join([*figures, where]))
        if self._dataset.fallback:
            self._run.warn(self._dataset.fallback)

    def steps(
        self,
        first: int,
        last: int,
        metrics: StepMetrics,
        weights_are_finite: Bool[np.ndarray, " seeds"],
        *,
        test: bool,
    ) -> None:
        """Note the metrics of a chunk, iterations `first` to `last`; a test may follow.

        Args:
            first, last: the chunk's first and last iteration.
            metrics: on the host, a row per seed and a column per step.
            weights_are_finite: whether all of a seed's weights are finite after the chunk.
            test: whether `test_point` follows.

        Raises:
            DivergedError: naming the first iteration at which a loss, an energy or a weight is not
                finite; the lines up to it are kept.
        """
        per_epoch = len(self._dataset.train_images) // self._config.batch_size
        seconds = self.clock.elapsed
        if self._to_first_step is None:
            self._to_first_step = seconds - self.clock.seconds["train"] - self._earlier
        figures = {name: np.asarray(rows, np.float64) for name, rows in vars(metrics).items()}
        for i, iteration in enumerate(range(first, last + 1)):
            lines = [
                {
                    "iteration": iteration,
                    "epoch": (iteration - 1) // per_epoch,
                    "seed": self._config.seed + seed,
                    "seconds": seconds,
                    **{name: float(rows[seed, i]) for name, rows in figures.items()},
                    "test_accuracy": None,
                    "generation_error": None,
                }
                for seed in range(self._config.n_seeds)
            ]
            broken = {name for name, rows in figures.items() if not np.isfinite(rows[:, i]).all()}
            tested = test and iteration == last
            if broken or tested or iteration % self._config.log_every == 0:
                self._pending += lines
            if broken:
                raise self._diverged(iteration, broken, lines)
        if not weights_are_finite.all():
            raise self._diverged(last, {"weights"}, [])
        if not test:
            self._write_pending()

    def test_point(self, iteration: int, tests: Sequence[NetworkTest], state: TrainState) -> None:
        """Record a test: console line, metrics, sample grid, and the checkpoints last and best.

        Args:
            iteration: the last one done.
            tests: a test per seed.
            state: on the host; stacked if there are several seeds.

        Raises:
            DivergedError: if what is drawn is not finite, as from weights that are about to
                overflow.
        """
        is_first = self._final is None
        lines = self._pending[-len(tests) :]
        for line, test in zip(lines, tests, strict=True):
            line |= {"test_accuracy": test.accuracy, "generation_error": test.generation_error}
        if not all(math.isfinite(test.generation_error) for test in tests):
            raise self._diverged(iteration, {"generation_error"}, lines)
        self._final = lines
        is_best = self._best is None or _mean_accuracy(lines) > _mean_accuracy(self._best)
        if is_best:
            self._best = lines
        mean = mean_line(lines)
        self._run.say(
            f"Iter {iteration}, gen loss={mean['gen_loss']:.6f}, "
            f"amort loss={mean['amort_loss']:.6f}, "
            f"avg amort test accuracy={mean['test_accuracy']:.2f}{of_seeds(lines)}"
        )
        with self.clock.phase("write"):
            self._write_pending()
            picture = self._pictures.draw_samples(iteration, tests)
            if self._loggers:
                stacked = state if len(tests) > 1 else stack([state])
                scale = pixel_scale(self._config.data.mean, self._config.data.std)
                histograms = histograms_of(stacked, self._dataset.test_images, scale)
                self._loggers.each(lambda logger: logger.test_point(iteration, picture, histograms))
        self.checkpoint(iteration, state, is_best=is_best)
        if is_first:
            load_in_background()

    def checkpoint_is_due(self, iteration: int) -> bool:
        """Tell whether `checkpoint_every` or `keep_every` asks for a checkpoint now."""
        return self._checkpoints.is_due(iteration)

    def checkpoint(self, iteration: int, state: TrainState, *, is_best: bool = False) -> None:
        """Save the state after an iteration, and keep the checkpoint before it.

        Raises:
            OSError: if it cannot be written; the checkpoints and metrics before are then as they
                were.
        """
        with self.clock.phase("write"):
            self._checkpoints.save(iteration, state, self._header(iteration), is_best=is_best)

    def _go_on_from(self, start: Start) -> None:
        """Take over an earlier process's clock and checkpoints, as if it had not ended."""
        self._earlier = 0.0
        if start.checkpoint is None:
            return
        here = self.clock.elapsed - self.clock.seconds["train"]
        self.clock.add_earlier(start.checkpoint.header["seconds"])
        self._earlier = self.clock.elapsed - self.clock.seconds["train"] - here
        best = self._best[0]["iteration"] if self._best else None
        if not self._checkpoints.take_over(start, best):
            self._best = None  # it is lost: the next test point is the best that there is

    def _diverged(
        self, iteration: int, broken: set[str], lines: Sequence[dict[str, Any]]
    ) -> DivergedError:
        kept = "no checkpoint had been saved yet"
        if self._checkpoints.saved is not None:
            kept = f"the state of iteration {self._checkpoints.saved} is in checkpoints/last.ckpt"
        seeds = [
            str(line["seed"])
            for line in lines
            if len(lines) > 1 and not all(math.isfinite(line[name]) for name in broken)
        ]
        in_seeds = f" (seed {', '.join(seeds)})" if seeds else ""
        names = [
            name
            for name in (*StepMetrics.__annotations__, "weights", "generation_error")
            if name in broken
        ]
        error = DivergedError(
            f"training diverged: at iteration {iteration}{in_seeds} {', '.join(names)} "
            f"{'is' if len(names) == 1 else 'are'} no longer finite; "
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
        written, self._pending = self._pending, []
        if written:
            self._loggers.each(lambda logger: logger.lines(written))

    def _conclude(self, status: str, reason: str | None = None) -> None:
        with self.clock.phase("write"):
            self._write_pending()
            if lines := self._run.read_metrics():
                self._pictures.draw_curves(lines)
        self._run.write_summary(self._summary(status, reason))

    def _summary(self, status: str, reason: str | None) -> dict[str, Any]:
        return summarise(
            status,
            reason,
            self._final,
            self._best,
            self._dataset,
            self.clock.seconds
            | {"to_first_step": self._to_first_step, "total": self.clock.elapsed},
        )


def _mean_accuracy(lines: Sequence[dict[str, Any]]) -> float:
    return float(np.mean([line["test_accuracy"] for line in lines]))
