"""The loop of training: runs that train together as one program, and a directory for each."""

import contextlib
import functools
import itertools
import os
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from tqdm import tqdm

from bpc_cli.core.ensembles import join, take
from bpc_cli.core.layout import fetch, lay_out, place
from bpc_cli.core.learning import StepMetrics, TrainState
from bpc_cli.core.training import Chunk, ChunkEnd, Examples, train_ensemble
from bpc_cli.data.datasets import Dataset
from bpc_cli.data.examples import batch_indices
from bpc_cli.evaluation.feedforward import evaluate_ensemble
from bpc_cli.evaluation.metrics import class_means
from bpc_cli.evaluation.network_tests import NetworkTest, first_examples
from bpc_cli.runs.device import choose_devices
from bpc_cli.runs.endings import SweepEndedError
from bpc_cli.runs.recorder import ChunkMetrics
from bpc_cli.runs.run import Member, Run
from bpc_cli.runs.signals import StopRequest, deferred_signals
from bpc_cli.runs.team import Team

Steps = tuple[TrainState, StepMetrics, ChunkEnd]


class HeldStates:
    """The states after a chunk, of which a copy comes to the host once it is asked for.

    Args:
        states: the states.
        team: the processes that hold them.
    """

    def __init__(self, states: TrainState, team: Team):
        self._states = states
        self._team = team

    @functools.cached_property
    def on_host(self) -> TrainState:
        """The copy on the host."""
        return self._team.fetch(self._states)


def train_together(seats: Sequence[Run | None], team: Team) -> None:
    """Train runs chunk by chunk, and record test points and checkpoints of each.

    A program of another number of members rounds differently. So every run keeps its seat, and
    every seat its member, whatever has become of the others: a copy of another run fills the seat
    of one that is not trained, and a run that is ahead waits until the others have caught up. What
    is computed meanwhile in its seat is discarded. A run that fails is closed and keeps its
    failure; the others continue.

    Args:
        seats: the runs; None: one that had finished, or failed, before this training began.
        team: the processes that train them, of which this one leads.
    """
    runs = [run for run in seats if run is not None]
    members = [run or runs[0] for run in seats]
    schedule, starts = runs[0].plan.schedule, [member.iteration for member in members]
    stops = sorted({*starts, schedule.n_iters})
    states, seconds_per_step = None, None
    take_steps, test_models = make_stepper(members), make_tester(runs[0].plan.dataset)
    progress = tqdm(total=schedule.n_iters, initial=stops[0], disable=None, leave=False, unit="it")
    for run in runs:
        run.closing.enter_context(run.recorder.outcome())
    with progress, deferred_signals() as stop_request:
        for iteration, stop in itertools.pairwise(stops):
            have_begun = [start < iteration for start in starts]
            states = team.take_over(seat_states(members, have_begun, states, team))
            while iteration < stop and (trained := runs_at(iteration, runs)):
                first, clock = iteration + 1, trained[0].recorder.clock
                iteration = min(stop, schedule.next_stop(iteration, seconds_per_step))
                before = clock.seconds["train"]
                team.step(first, iteration)
                with counted_as("train", trained):
                    states, metrics, end = take_steps(first, iteration, states)
                seconds_per_step = (clock.seconds["train"] - before) / (iteration - first + 1)
                tests, held = None, HeldStates(states, team)
                if schedule.is_test_point(iteration):
                    with counted_as("evaluate", trained):
                        tests = test_models(states if team.is_alone else held.on_host)
                chunk = ChunkMetrics(first, iteration, metrics, end)
                record_chunk(seats, chunk, tests, held, stop_request)
                progress.update(iteration - progress.n)
                stop_request.handle()
    for run in unfailed(runs):
        with run.alone():
            run.closing.close()


def seat_states(
    members: Sequence[Run], have_begun: Sequence[bool], states: TrainState | None, team: Team
) -> TrainState:
    """Join the states of all seats: those that were trained, of members that have begun.

    The others' are those that they begin from, or would if they need not wait.
    """
    if states is None or not any(have_begun):
        return join([member.ensemble.states for member in members])
    host_states, n_seeds = team.fetch(states), len(members[0].plan.seeds)
    return join(
        [
            take(host_states, slice(seat * n_seeds, (seat + 1) * n_seeds))
            if begun
            else member.ensemble.states
            for seat, (member, begun) in enumerate(zip(members, have_begun, strict=True))
        ]
    )


def make_stepper(runs: Sequence[Run | Member]) -> Callable[[int, int, TrainState], Steps]:
    """Make the function that trains all runs from one iteration to another.

    Each seed of each run has its own batches, in the order that its seed fixes.
    """
    plan = runs[0].plan
    dataset, capacity, batch_size = plan.dataset, plan.schedule.capacity, plan.batch_size
    training = join([run.ensemble.training for run in runs])
    label_known = join([run.ensemble.label_known for run in runs])
    seeds = [seed for run in runs for seed in run.plan.seeds]
    layout = lay_out(len(seeds), batch_size, choose_devices(plan.n_devices))
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
        states, metrics, end = jax.block_until_ready(
            train_ensemble(Chunk(examples, rows_of_steps, n_steps, training), states)
        )
        return states, *fetch((metrics, end))

    return take_steps


def make_tester(dataset: Dataset) -> Callable[[TrainState], list[NetworkTest]]:
    """Make the function that tests every seed of every run."""
    images, labels = jax.device_put(dataset.test_images), dataset.test_labels
    means = class_means(dataset.test_images, labels, dataset.n_classes)
    examples = first_examples(dataset.test_images, labels, dataset.n_classes)

    def test_models(states: TrainState) -> list[NetworkTest]:
        return evaluate_ensemble(states.model, images, labels, means, examples)

    return test_models


def record_chunk(
    seats: Sequence[Run | None],
    chunk: ChunkMetrics,
    tests: list[NetworkTest] | None,
    held: HeldStates,
    stop_request: StopRequest,
) -> None:
    """Record a chunk of every run that it was for: metrics, and the test or a checkpoint."""
    n_seeds = len(chunk.end.weights_are_finite) // len(seats)
    for seat, run in enumerate(seats):
        if run is None or run.failure is not None or run.iteration != chunk.first - 1:
            continue
        own = slice(seat * n_seeds, (seat + 1) * n_seeds)
        which = own if n_seeds > 1 else seat
        with run.alone():
            steps, end = take(chunk.steps, own), take(chunk.end, own)
            run.recorder.steps(chunk._replace(steps=steps, end=end), test=tests is not None)
            if tests or stop_request or run.recorder.checkpoint_is_due(chunk.last):
                state = take(held.on_host, which)
                if tests:
                    run.recorder.test_point(chunk.last, tests[own], state)
                else:
                    run.recorder.checkpoint(chunk.last, state)
        run.iteration = chunk.last
        if getattr(run.failure, "ends_sweep", False):
            end_with(run, [run for run in seats if run is not None])


def end_with(failed: Run, runs: Sequence[Run]) -> None:
    """End the runs that train together with one that is to end its sweep."""
    for run in unfailed(runs):
        with run.alone():
            raise SweepEndedError(f"ended with {os.path.relpath(failed.directory)}, which failed")


def unfailed(runs: Sequence[Run]) -> list[Run]:
    """List the runs that have not failed."""
    return [run for run in runs if run.failure is None]


def runs_at(iteration: int, runs: Sequence[Run]) -> list[Run]:
    """List the runs that have come to an iteration, without those that have failed."""
    return [run for run in unfailed(runs) if run.iteration == iteration]


@contextlib.contextmanager
def counted_as(phase: str, runs: Sequence[Run]) -> Iterator[None]:
    """Count the seconds of a `with` block to a phase of runs."""
    with contextlib.ExitStack() as phases:
        for run in runs:
            phases.enter_context(run.recorder.clock.phase(phase))
        yield
