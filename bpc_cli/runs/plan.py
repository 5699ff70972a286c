"""What a run is to do, and when it looks up: at test points, to save, and for signals."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from bpc_cli.data.datasets import Dataset
from bpc_cli.evaluation.metrics import Metric
from bpc_cli.files import JsonObject

CHUNK_SECONDS = 5.0
_MOST_STEPS = 1_000


@dataclasses.dataclass(frozen=True)
class Schedule:
    """When a run tests, logs and saves, in iterations where not said.

    Attributes:
        n_iters: the iteration that it ends after.
        test_every: the distance of test points.
        log_every: the distance of metrics lines.
        save_every: the distance of checkpoints; None: by time alone.
        save_seconds: the most seconds between checkpoints.
        keep_every: the distance of checkpoints that are kept; None: last, previous and best.
    """

    n_iters: int
    test_every: int
    log_every: int = 1
    save_every: int | None = None
    save_seconds: float = math.inf
    keep_every: int | None = None

    @property
    def capacity(self) -> int:
        """How many steps a compiled chunk has room for."""
        return min(self.n_iters, self.test_every, _MOST_STEPS)

    def next_stop(self, iteration: int, seconds_per_step: float | None) -> int:
        """Choose the last iteration of the chunk that follows `iteration`.

        That is the next test point or checkpoint, or the run's last iteration, or as far as the
        chunk's capacity and time allow: a signal waits for the running chunk.

        Args:
            iteration: the last iteration done; 0 before the first.
            seconds_per_step: how long a step takes; None before the first, which is run alone.
        """
        distances = [
            every for every in (self.test_every, self.keep_every, self.save_every) if every
        ]
        stop = min([self.n_iters, *((iteration // every + 1) * every for every in distances)])
        steps = 1
        if seconds_per_step is not None:
            longest = min(self.save_seconds, CHUNK_SECONDS)
            steps = int(longest / max(seconds_per_step, 1e-9))
        return min(stop, iteration + max(1, min(steps, self.capacity)))

    def is_test_point(self, iteration: int) -> bool:
        """Tell whether an iteration is followed by a test."""
        return iteration % self.test_every == 0 or iteration == self.n_iters


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run is to do.

    Attributes:
        seeds: the seeds of its ensemble, mostly one.
        batch_size: images per training step.
        n_devices: how many devices it trains on.
        schedule: when it tests, logs and saves.
        dataset: the data set really used.
        n_examples: how many of its training images each seed trains on.
        tested: the metrics of its tests; its best state is chosen by the first.
        label_loss: the loss at the label.
        title: what its curves are headed by, beside data set and seeds.
        save_samples: whether the sample grid of every test point is kept.
        figure_formats: formats of figures beside PNG.
        ends_sweep: whether divergence is to end its sweep as well.
        on_instability: what a sign of bad health does, one of `names.ON_INSTABILITY`.
        chance: the test accuracy in per cent of one who guesses; None where nothing learns to
            classify.
        least_losses: of a run that overfits one batch, the least that each loss can be which is to
            fall, by its name; of others empty.
        options: its config as plain values, as it is saved beside its state.
    """

    seeds: range
    batch_size: int
    n_devices: int
    schedule: Schedule
    dataset: Dataset
    n_examples: int
    tested: Sequence[Metric]
    label_loss: str
    title: str
    save_samples: bool
    figure_formats: Sequence[str]
    ends_sweep: bool
    on_instability: str
    chance: float | None
    least_losses: Mapping[str, float]
    options: JsonObject
