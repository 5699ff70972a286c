"""The loop of training: runs that train together as one program, and a directory for each."""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence

import jax
from tqdm import tqdm

from bpc_cli.core.ensembles import join, take
from bpc_cli.core.learning import TrainState
from bpc_cli.data.datasets import Dataset
from bpc_cli.evaluation.feedforward import evaluate_ensemble
from bpc_cli.evaluation.metrics import class_means
from bpc_cli.evaluation.network_tests import NetworkTest, first_examples
from bpc_cli.runs.endings import SweepEndedError
from bpc_cli.runs.recorder import ChunkMetrics
from bpc_cli.runs.run import Run
from bpc_cli.runs.signals import deferred_signals
from bpc_cli.runs.stepping import Stepping
from bpc_cli.runs.team import Team


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
    states: TrainState | None = None
    stepping, test_models = Stepping(members, team), make_tester(runs[0].plan.dataset)
    progress = tqdm(total=schedule.n_iters, initial=stops[0], disable=None, leave=False, unit="it")
    for run in runs:
        run.closing.enter_context(run.recorder.outcome())
    with progress, deferred_signals() as stop_request, stepping.settled():
        for iteration, stop in itertools.pairwise(stops):
            have_begun = [start < iteration for start in starts]
            states = team.take_over(seat_states(members, have_begun, states, team))
            stepping.begin(iteration, stop, states)
            while stepping.has_begun and (trained := runs_at(iteration, runs)):
                with counted_as("train", trained):
                    states, chunk = stepping.end()
                iteration, is_stopping, on_host, tests = chunk.last, bool(stop_request), None, None
                is_tested = schedule.is_test_point(iteration)
                if is_tested or is_stopping or is_to_be_saved(iteration, trained):
                    on_host = team.fetch(states)
                    if is_tested:
                        with counted_as("evaluate", trained):
                            tests = test_models(states if team.is_alone else on_host)
                    is_stopping = bool(stop_request)  # a signal may have come meanwhile
                if not is_stopping:  # this chunk is recorded while the next one is trained
                    stepping.begin(iteration, stop, states)
                record_chunk(seats, chunk, tests, on_host)
                progress.update(iteration - progress.n)
                if is_stopping:
                    stop_request.handle()
                    stepping.begin(iteration, stop, states)
            if not unfailed(runs):
                break
            if stepping.has_begun:  # by runs that have failed since
                states, _ = stepping.end()
    for run in unfailed(runs):
        with run.alone():
            run.closing.close()


def is_to_be_saved(iteration: int, runs: Sequence[Run]) -> bool:
    """Tell whether a run's schedule asks for a checkpoint now."""
    return any(run.recorder.checkpoint_is_due(iteration) for run in runs)


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
    on_host: TrainState | None,
) -> None:
    """Record a chunk of every run that it was for: metrics, and the test or a checkpoint.

    Args:
        seats: the runs, by seat.
        chunk: the chunk.
        tests: a test of every member; None: it is not followed by one.
        on_host: the states after it, if they are to be saved.
    """
    n_seeds = len(chunk.end.weights_are_finite) // len(seats)
    for seat, run in enumerate(seats):
        if run is None or run.failure is not None or run.iteration != chunk.first - 1:
            continue
        own = slice(seat * n_seeds, (seat + 1) * n_seeds)
        which = own if n_seeds > 1 else seat
        with run.alone():
            steps, end = take(chunk.steps, own), take(chunk.end, own)
            run.recorder.steps(chunk._replace(steps=steps, end=end), test=tests is not None)
            if on_host is not None:
                state = take(on_host, which)
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
