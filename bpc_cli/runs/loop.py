"""The loop of training: runs that train together as one program, and a directory for each."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Bool
from tqdm import tqdm

from bpc_cli.core.ensembles import join, static_of, take
from bpc_cli.core.learning import StepMetrics, TrainState
from bpc_cli.core.training import Chunk, ChunkEnd, Examples, Training, train_ensemble
from bpc_cli.data.datasets import Dataset, batch_indices
from bpc_cli.errors import UserError
from bpc_cli.evaluation.feedforward import evaluate_ensemble
from bpc_cli.evaluation.metrics import NetworkTest, class_means
from bpc_cli.runs.endings import SweepEndedError
from bpc_cli.runs.plan import Plan
from bpc_cli.runs.recorder import ChunkMetrics, Recorder
from bpc_cli.runs.signals import StopRequest, deferred_signals

Steps = tuple[TrainState, StepMetrics, ChunkEnd]


class Ensemble(eqx.Module):
    """The models of a run, one for each of its seeds, stacked along a leading axis.

    Attributes:
        training: how each trains.
        label_known: whose labels each knows; None: everyone's.
        states: models and optimiser states.
    """

    training: Training
    label_known: Bool[np.ndarray, "seeds examples"] | None
    states: TrainState


class Run:
    """One of the runs that train together.

    Args:
        plan: what it is to do.
        directory: where its records go.
        iteration: the last iteration done.
        ensemble: its models.
        recorder: writes what happens in it.
        closing: closes its records, and lets go of its directory.

    Attributes:
        failure: what ended it before its time.
    """

    def __init__(
        self,
        plan: Plan,
        directory: Path,
        iteration: int,
        ensemble: Ensemble,
        recorder: Recorder,
        closing: contextlib.ExitStack,
    ):
        self.plan = plan
        self.directory = directory
        self.iteration = iteration
        self.ensemble = ensemble
        self.recorder = recorder
        self.closing = closing
        self.failure: UserError | OSError | None = None

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Turn an error of a user's raised in a `with` block into this run's failure.

        The other runs continue.
        """
        try:
            yield
        except (UserError, OSError) as error:
            self.failure = error
            self.closing.__exit__(type(error), error, error.__traceback__)

    def fits(self, other: "Run") -> bool:
        """Tell whether two runs of configs that fit can be trained by one program from here on."""
        mine, others = (static_of(run.ensemble) for run in (self, other))
        return self.iteration == other.iteration and bool(eqx.tree_equal(mine, others))


def group_runs(runs: Sequence[Run]) -> list[list[Run]]:
    """Sort runs into groups that can be trained by one program."""
    groups: list[list[Run]] = []
    for run in runs:
        fitting = next((group for group in groups if group[0].fits(run)), None)
        if fitting is None:
            groups.append([run])
        else:
            fitting.append(run)
    return groups


def train_together(runs: Sequence[Run]) -> None:
    """Train runs chunk by chunk, and record test points and checkpoints of each.

    A run that fails is closed and keeps its failure; the others continue.
    """
    plan, iteration, schedule = runs[0].plan, runs[0].iteration, runs[0].plan.schedule
    clock = runs[0].recorder.clock
    seconds_per_step = None
    states = join([run.ensemble.states for run in runs])
    take_steps, test_models = make_stepper(runs), make_tester(plan.dataset)
    progress = tqdm(total=schedule.n_iters, initial=iteration, disable=None, leave=False, unit="it")
    for run in runs:
        run.closing.enter_context(run.recorder.outcome())
    with progress, deferred_signals() as stop_request:
        while iteration < schedule.n_iters and unfailed(runs):
            first = iteration + 1
            iteration = schedule.next_stop(iteration, seconds_per_step)
            before = clock.seconds["train"]
            with counted_as("train", runs):
                states, metrics, end = take_steps(first, iteration, states)
            seconds_per_step = (clock.seconds["train"] - before) / (iteration - first + 1)
            tests = None
            if schedule.is_test_point(iteration):
                with counted_as("evaluate", runs):
                    tests = test_models(states)
            chunk = ChunkMetrics(first, iteration, metrics, end)
            record_chunk(runs, chunk, tests, states, stop_request)
            progress.update(iteration - first + 1)
            stop_request.handle()
    for run in unfailed(runs):
        with run.alone():
            run.closing.close()


def make_stepper(runs: Sequence[Run]) -> Callable[[int, int, TrainState], Steps]:
    """Make the function that trains all runs from one iteration to another.

    Each seed of each run has its own batches, in the order that its seed fixes.
    """
    plan = runs[0].plan
    dataset, capacity, batch_size = plan.dataset, plan.schedule.capacity, plan.batch_size
    training = join([run.ensemble.training for run in runs])
    label_known = join([run.ensemble.label_known for run in runs])
    examples = Examples(*jax.device_put((dataset.train_images, dataset.train_labels, label_known)))
    seeds = [seed for run in runs for seed in run.plan.seeds]

    def take_steps(first: int, last: int, states: TrainState) -> Steps:
        indices = np.zeros((len(seeds), capacity, batch_size), np.int32)
        batches = functools.cache(batch_indices)  # many runs of a sweep share a seed
        for rows, seed in zip(indices, seeds, strict=True):
            rows[: last - first + 1] = batches(
                seed, first, last, len(dataset.train_images), batch_size
            )
        rows_of_steps, n_steps = jax.device_put((indices, np.int32(last - first + 1)))
        states, metrics, end = jax.block_until_ready(
            train_ensemble(Chunk(examples, rows_of_steps, n_steps, training), states)
        )
        return states, *jax.device_get((metrics, end))

    return take_steps


def make_tester(dataset: Dataset) -> Callable[[TrainState], list[NetworkTest]]:
    """Make the function that tests every seed of every run."""
    images, labels = jax.device_put(dataset.test_images), dataset.test_labels
    means = class_means(dataset.test_images, labels, dataset.n_classes)

    def test_models(states: TrainState) -> list[NetworkTest]:
        return evaluate_ensemble(states.model, images, labels, means)

    return test_models


def record_chunk(
    runs: Sequence[Run],
    chunk: ChunkMetrics,
    tests: list[NetworkTest] | None,
    states: TrainState,
    stop_request: StopRequest,
) -> None:
    """Record a chunk of every run: metrics, and the test or a checkpoint where due."""
    host_states, first_member = None, 0
    for run in runs:
        own = slice(first_member, first_member + len(run.plan.seeds))
        which = own if len(run.plan.seeds) > 1 else first_member
        first_member = own.stop
        if run.failure is not None:
            continue
        with run.alone():
            steps, end = take(chunk.steps, own), take(chunk.end, own)
            run.recorder.steps(chunk._replace(steps=steps, end=end), test=tests is not None)
            if tests or stop_request or run.recorder.checkpoint_is_due(chunk.last):
                host_states = host_states or jax.device_get(states)
                state = take(host_states, which)
                if tests:
                    run.recorder.test_point(chunk.last, tests[own], state)
                else:
                    run.recorder.checkpoint(chunk.last, state)
        if getattr(run.failure, "ends_sweep", False):
            end_with(run, runs)


def end_with(failed: Run, runs: Sequence[Run]) -> None:
    """End the runs that train together with one that is to end its sweep."""
    for run in unfailed(runs):
        with run.alone():
            raise SweepEndedError(f"ended with {os.path.relpath(failed.directory)}, which failed")


def unfailed(runs: Sequence[Run]) -> list[Run]:
    """List the runs that have not failed."""
    return [run for run in runs if run.failure is None]


@contextlib.contextmanager
def counted_as(phase: str, runs: Sequence[Run]) -> Iterator[None]:
    """Count the seconds of a `with` block to a phase of every run that has not failed."""
    with contextlib.ExitStack() as phases:
        for run in unfailed(runs):
            phases.enter_context(run.recorder.clock.phase(phase))
        yield
