"""What a training run records: metrics lines, test points, and how it ended."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from bpc_cli.core.ensembles import stack
from bpc_cli.core.learning import StepMetrics, TrainState
from bpc_cli.core.training import ChunkEnd
from bpc_cli.errors import one_line
from bpc_cli.evaluation.metrics import measure_test
from bpc_cli.evaluation.network_tests import NetworkTest
from bpc_cli.evaluation.statistics import MetricsLine, mean_line, whole
from bpc_cli.files import JsonObject
from bpc_cli.plots.saving import load_in_background
from bpc_cli.runs.checkpoints.retention import Checkpoints
from bpc_cli.runs.clock import PhaseClock
from bpc_cli.runs.device import device_kind
from bpc_cli.runs.directory import RunDirectory
from bpc_cli.runs.endings import (
    DivergedError,
    PrunedError,
    UnstableError,
    diverged,
    is_finite,
    report_fit,
    status_after,
    what_is_kept,
)
from bpc_cli.runs.figures import Figures
from bpc_cli.runs.health import Health
from bpc_cli.runs.loggers.logger import Loggers
from bpc_cli.runs.plan import Plan
from bpc_cli.runs.resume import Start
from bpc_cli.runs.summary import closing_words, of_seeds, software_versions, summarise


class ChunkMetrics(NamedTuple):
    """What a chunk of steps reported, on the host.

    Attributes:
        first, last: its first and last iteration.
        steps: a row per seed and a column per step.
        end: what was looked at after its last step, a row per seed.
    """

    first: int
    last: int
    steps: StepMetrics
    end: ChunkEnd


class Recorder:
    """Writes what happens in a training run to its directory.

    Args:
        run: the run's directory.
        clock: where the run's time goes.
        plan: what the run is to do.
        start: what it resumes.
        loggers: where else metrics go.
        is_hopeless: whether a run that has tested like this, in the mean over seeds, is to end.
    """

    def __init__(
        self,
        run: RunDirectory,
        clock: PhaseClock,
        plan: Plan,
        start: Start,
        loggers: Loggers,
        is_hopeless: Callable[[MetricsLine], bool] = lambda line: False,
    ):
        self.clock = clock
        self._run = run
        self._plan = plan
        self._start = start
        self._loggers = loggers
        self._is_hopeless = is_hopeless
        self._pending: list[MetricsLine] = []  # metrics lines since the last test point
        self._to_first_step: float | None = None
        self._earlier = 0.0  # what earlier processes of this run had spent before their first step
        self._figures = Figures(run, plan)
        header = start.checkpoint.header if start.checkpoint else {}
        self._health = Health(plan.seeds, plan.chance, header.get("health"))
        self._is_warned = False
        tested: dict[int, list[MetricsLine]] = {}  # by iteration, a line per seed
        for line in run.read_metrics():
            if line.get(plan.tested[0].name) is not None:
                tested.setdefault(whole(line, "iteration"), []).append(line)
        self._final = list(tested.values())[-1] if tested else None
        self._checkpoints = Checkpoints(run.checkpoints, plan.schedule, start)
        self._best = self._take_over_best(tested)

    @contextlib.contextmanager
    def outcome(self) -> Iterator[None]:
        """Write curves and summary at the end of a `with` block, however the training ended."""
        self.clock.end_start_up()
        self._count_earlier_seconds()
        try:
            yield
            self._conclude("finished")
        except BaseException as error:
            with contextlib.suppress(OSError):  # on a full disk, what can still be written
                reason = None if isinstance(error, SystemExit) else one_line(error) or None
                self._conclude(status_after(error), reason)
            raise
        words = [closing_words(self._plan.dataset.name, self._final)] if self._final else []
        self._run.report("; ".join([*words, f"everything is in {os.path.relpath(self._run.path)}"]))
        report_fit(self._plan.least_losses, self._run)
        for line in self._health_lines()[:1]:
            self._run.warn(line)
        if self._plan.dataset.fallback:
            self._run.warn(self._plan.dataset.fallback)

    def steps(self, chunk: ChunkMetrics, *, test: bool) -> None:
        """Record the metrics of a chunk; `test` says whether `test_point` follows.

        Raises:
            DivergedError: naming the first iteration at which a loss, an energy or a weight is not
                finite; the lines up to it are kept.
            UnstableError: at a sign of bad health, if that is to end the run.
        """
        seconds = self.clock.elapsed
        if self._to_first_step is None:
            self._to_first_step = seconds - self.clock.seconds["train"] - self._earlier
        columns = {name: np.asarray(rows, np.float64) for name, rows in vars(chunk.steps).items()}
        log_every = self._plan.schedule.log_every
        for i, iteration in enumerate(range(chunk.first, chunk.last + 1)):
            values = {name: rows[:, i] for name, rows in columns.items()}
            lines = self._lines_of(iteration, seconds, values)
            broken = {name for name, row in values.items() if not np.isfinite(row).all()}
            if broken or (test and iteration == chunk.last) or iteration % log_every == 0:
                self._pending += lines
            if broken:
                raise self._diverged(iteration, broken, lines)
        if not chunk.end.weights_are_finite.all():
            raise self._diverged(chunk.last, {"weights"}, [])
        self._vitals = chunk.end.vitals
        taken = slice(chunk.last - chunk.first + 1)
        energies = (columns[name][:, taken] for name in ("energy_before", "climbing_fraction"))
        self._health.watch_steps(chunk.first, *energies)
        if not test:
            self._write_pending()
            self._heed_health()

    def test_point(self, iteration: int, tests: Sequence[NetworkTest], state: TrainState) -> None:
        """Record a test: console line, metrics, sample grid, and the checkpoints last and best.

        Args:
            iteration: the last one done.
            tests: a test per seed.
            state: on the host; stacked if there are several seeds.

        Raises:
            DivergedError: if what is generated is not finite, as from weights that are about to
                overflow.
            UnstableError: at a sign of bad health, if that is to end the run.
            PrunedError: if the run is hopeless, and not at its end.
        """
        is_first = self._final is None
        lines = self._pending[-len(tests) :]
        for line, test in zip(lines, tests, strict=True):
            line |= measure_test(test)
        measured = [metric.name for metric in self._plan.tested]
        broken = {name for name in measured for line in lines if not is_finite(line[name])}
        if broken:
            raise self._diverged(iteration, broken, lines)
        self._final = lines
        is_best = self._best is None or self._quality(lines) > self._quality(self._best)
        if is_best:
            self._best = lines
        self._report(iteration, lines)
        accuracies = [float(line.get("test_accuracy") or 0.0) for line in lines]
        self._health.watch_test(iteration, accuracies, self._vitals)
        with self.clock.phase("write"):
            self._write_pending()
            picture = self._figures.draw_samples(iteration, tests)
            models = state.model if len(tests) > 1 else stack([state.model])
            self._loggers.test_point(iteration, picture, models, self._plan.dataset.test_images)
        self.checkpoint(iteration, state, is_best=is_best)
        if is_first:
            load_in_background()
        self._heed_health()
        if iteration < self._plan.schedule.n_iters and self._is_hopeless(mean_line(lines)):
            kept = what_is_kept(self._checkpoints.saved)
            raise PrunedError(f"pruned at iteration {iteration}: other trials do better ({kept})")

    def checkpoint_is_due(self, iteration: int) -> bool:
        """Tell whether the schedule asks for a checkpoint now."""
        return self._checkpoints.is_due(iteration)

    def checkpoint(self, iteration: int, state: TrainState, *, is_best: bool = False) -> None:
        """Save the state after an iteration, and keep the checkpoint before it.

        Raises:
            OSError: if it cannot be written; the checkpoints and metrics before are then as they
                were.
        """
        with self.clock.phase("write"):
            self._checkpoints.save(iteration, state, self._header(iteration), is_best=is_best)

    def _lines_of(
        self, iteration: int, seconds: float, values: Mapping[str, Float[np.ndarray, " seeds"]]
    ) -> list[MetricsLine]:
        per_epoch = self._plan.n_examples // self._plan.batch_size
        return [
            {
                "iteration": iteration,
                "epoch": (iteration - 1) // per_epoch,
                "seed": seed,
                "seconds": seconds,
                **{name: float(row[number]) for name, row in values.items()},
                **{metric.name: None for metric in self._plan.tested},
            }
            for number, seed in enumerate(self._plan.seeds)
        ]

    def _report(self, iteration: int, lines: Sequence[MetricsLine]) -> None:
        mean, chosen_by = mean_line(lines), self._plan.tested[0]
        title = "avg amort test accuracy" if chosen_by.name == "test_accuracy" else chosen_by.title
        self._run.report(
            f"Iter {iteration}, gen loss={mean['gen_loss']:.6f}, "
            f"amort loss={mean['amort_loss']:.6f}, "
            f"{title}={mean[chosen_by.name]:.{chosen_by.decimals}f}{of_seeds(lines)}"
        )

    def _quality(self, lines: Sequence[MetricsLine]) -> float:
        """Average what the best state is chosen by over seeds; higher is better."""
        chosen_by = self._plan.tested[0]
        mean = fmean(float(line[chosen_by.name] or 0.0) for line in lines)
        return mean if chosen_by.better == "higher" else -mean

    def _take_over_best(self, tested: Mapping[int, list[MetricsLine]]) -> list[MetricsLine] | None:
        """Take over earlier checkpoints; return the best test point that one is left of."""
        qualities = {iteration: self._quality(lines) for iteration, lines in tested.items()}
        kept = self._checkpoints.take_over(self._start, qualities)
        best = max(qualities, key=lambda iteration: qualities[iteration], default=None)
        if kept != best:
            place = "the next test point takes" if kept is None else f"iteration {kept} has taken"
            self._run.warn(
                f"the checkpoint of iteration {best}, the best so far, is lost: {place} its place"
            )
        return None if kept is None else tested[kept]

    def _count_earlier_seconds(self) -> None:
        """Take over an earlier process's clock, as if it had not ended."""
        if self._start.checkpoint is None:
            return
        here = self.clock.elapsed - self.clock.seconds["train"]
        self.clock.add_earlier(self._start.checkpoint.header["seconds"])
        self._earlier = self.clock.elapsed - self.clock.seconds["train"] - here

    def _diverged(
        self, iteration: int, broken: set[str], lines: Sequence[MetricsLine]
    ) -> DivergedError:
        error = diverged(iteration, broken, lines, self._checkpoints.saved)
        error.ends_sweep = self._plan.ends_sweep
        return error

    def _health_lines(self) -> list[str]:
        if self._plan.on_instability == "ignore":
            return []
        of_several = len(self._plan.seeds) > 1
        return [each.in_a_line(of_several=of_several) for each in self._health.findings]

    def _heed_health(self) -> None:
        """Report the first sign of bad health, once, and end the run where that is asked for."""
        lines = self._health_lines()
        if lines and self._plan.on_instability == "stop":
            raise UnstableError(f"{lines[0]} ({what_is_kept(self._checkpoints.saved)})")
        if lines and not self._is_warned:
            self._is_warned = True
            self._run.warn(lines[0])

    def _header(self, iteration: int) -> JsonObject:
        dataset = self._plan.dataset
        return {
            "config": self._plan.options,
            "iteration": iteration,
            **self._run.sync_metrics(),
            "seconds": self.clock.seconds | {"total": self.clock.elapsed},
            "versions": software_versions() | {"device": device_kind(self._plan.n_devices)},
            "data_set": dataset.name,
            "image_shape": list(dataset.image_shape),
            "class_names": list(dataset.class_names),
            "health": self._health.to_json(),
        }

    def _write_pending(self) -> None:
        self._run.log_metrics(self._pending)
        written, self._pending = self._pending, []
        if written:
            self._loggers.lines(written)

    def _conclude(self, status: str, reason: str | None = None) -> None:
        with self.clock.phase("write"):
            self._write_pending()
            if lines := self._run.read_metrics():
                self._figures.draw_curves(lines)
            self._loggers.close(status)
        spent = {"to_first_step": self._to_first_step, "total": self.clock.elapsed}
        self._run.write_summary(
            summarise(
                (status, reason),
                self._final,
                self._best,
                self._plan,
                self.clock.seconds | spent,
                [] if self._plan.on_instability == "ignore" else self._health.findings,
            )
        )
