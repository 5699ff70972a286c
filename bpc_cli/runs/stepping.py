"""Steps of runs that train together, chunk by chunk: the next one while the last is recorded."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import jax
import numpy as np

from bpc_cli.core.ensembles import join
from bpc_cli.core.layout import fetch, introduce, lay_out, place
from bpc_cli.core.learning import StepMetrics, TrainState
from bpc_cli.core.training import Chunk, ChunkEnd, Examples, train_ensemble
from bpc_cli.data.examples import batch_indices
from bpc_cli.runs.device import choose_devices
from bpc_cli.runs.recorder import ChunkMetrics
from bpc_cli.runs.run import Member, Run
from bpc_cli.runs.team import Team

Steps = tuple[TrainState, StepMetrics, ChunkEnd]


class _Begun(NamedTuple):
    """Steps that are being taken: the first, the last, what comes of them, and how long it took."""

    first: int
    last: int
    taken: Future[tuple[Steps, float]]


class Stepping:
    """Takes the steps of runs: begins a chunk, and waits for it when it is wanted.

    Args:
        members: the runs, by seat.
        team: the processes that take them.
    """

    def __init__(self, members: Sequence[Run], team: Team):
        self._take_steps = make_stepper(members)
        self._schedule = members[0].plan.schedule
        self._clock = members[0].recorder.clock
        self._team = team
        self._begun: _Begun | None = None
        # Equinox waits for what it runs, so somebody else has to.
        self._thread = ThreadPoolExecutor(1)
        self._pace: float | None = None  # seconds a step

    @property
    def has_begun(self) -> bool:
        """Whether there is a chunk to wait for."""
        return self._begun is not None

    @contextlib.contextmanager
    def settled(self) -> Iterator[None]:
        """Leave no other process in the middle of a chunk when a `with` block ends early."""
        try:
            yield
        finally:
            if self.has_begun and not self._team.is_alone:
                self.end()
            self._thread.shutdown(wait=False)

    def begin(self, iteration: int, stop: int, states: TrainState) -> None:
        """Begin the chunk after an iteration; `states` are donated, so they cannot be used again.

        Args:
            iteration: the last one done.
            stop: the last one to do.
            states: the states after `iteration`.
        """
        if iteration >= stop:
            return
        first, last = iteration + 1, min(stop, self._schedule.next_stop(iteration, self._pace))
        self._team.step(first, last)
        self._begun = _Begun(first, last, self._thread.submit(self._take, first, last, states))

    def end(self) -> tuple[TrainState, ChunkMetrics]:
        """Wait for the chunk; return the states after it, and its metrics."""
        assert self._begun is not None
        (first, last, taken), self._begun = self._begun, None
        try:
            (states, *measured), seconds = taken.result()
        except BaseException:
            self._team.is_lost = not self._team.is_alone
            raise
        self._pace = seconds / (last - first + 1)
        return states, ChunkMetrics(first, last, *fetch(measured))

    def _take(self, first: int, last: int, states: TrainState) -> tuple[Steps, float]:
        with self._clock.counting() as spent:
            steps = jax.block_until_ready(self._take_steps(first, last, states))
        return steps, spent()


def make_stepper(runs: Sequence[Run | Member]) -> Callable[[int, int, TrainState], Steps]:
    """Make the function that begins to train all runs from one iteration to another.

    Each seed of each run has its own batches, in the order that its seed fixes.
    """
    plan = runs[0].plan
    dataset, capacity, batch_size = plan.dataset, plan.schedule.capacity, plan.batch_size
    training = join([run.ensemble.training for run in runs])
    label_known = join([run.ensemble.label_known for run in runs])
    seeds = [seed for run in runs for seed in run.plan.seeds]
    layout = lay_out(len(seeds), batch_size, choose_devices(plan.n_devices))
    introduce(layout)
    images, labels = place((dataset.train_images, dataset.train_labels), layout.of_all)
    examples = Examples(images, labels, place(label_known, layout.of_members))
    training = place(training, layout.of_members)
    trained_on = join([run.ensemble.trained_on for run in runs])

    def take_steps(first: int, last: int, states: TrainState) -> Steps:
        indices = np.zeros((len(seeds), capacity, batch_size), np.int32)
        batches = functools.cache(batch_indices)  # many runs of a sweep share a seed
        for number, seed in enumerate(seeds):
            rows = batches(seed, first, last, plan.n_examples, batch_size)
            if trained_on is not None:
                rows = trained_on[number][rows]
            indices[number, : last - first + 1] = rows
        rows_of_steps = place(indices, layout.of_steps)
        n_steps = place(np.int32(last - first + 1), layout.of_all)
        states = place(states, layout.of_members)
        return train_ensemble(Chunk(examples, rows_of_steps, n_steps, training), states)

    return take_steps
