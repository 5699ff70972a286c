"""Runs that train together: one compiled program, and a directory with records for each run."""

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
from bpc_cli.core.learning import StepMetrics, TrainState, train_replicas
from bpc_cli.core.rules import Rules
from bpc_cli.data.datasets import Dataset, batch_indices
from bpc_cli.data.pixels import pixel_scale
from bpc_cli.errors import UserError
from bpc_cli.evaluation.classification import NetworkTest, class_means, evaluate_replicas
from bpc_cli.options.schema import TrainConfig, checkpoint_distance
from bpc_cli.runs.pacing import chunk_capacity, next_stop
from bpc_cli.runs.recorder import Records, SweepEndedError
from bpc_cli.runs.signals import StopRequest, deferred_signals


class Run:
    """One of the runs that train together.

    Args:
        config: its checked config.
        directory: where its records go.
        dataset: the data set really used.
        n_iters: the iteration that it ends after.
        iteration: the last iteration done.
        rules: how each seed's steps infer and learn, stacked.
        states: networks and optimiser states of each seed, stacked.
        records: writes what happens in it.
        closing: closes its records, and lets go of its directory.

    Attributes:
        failure: what ended it before its time.
    """

    def __init__(
        self,
        config: TrainConfig,
        directory: Path,
        dataset: Dataset,
        n_iters: int,
        iteration: int,
        rules: Rules,
        states: TrainState,
        records: Records,
        closing: contextlib.ExitStack,
    ):
        self.config = config
        self.directory = directory
        self.dataset = dataset
        self.n_iters = n_iters
        self.iteration = iteration
        self.rules = rules
        self.states = states
        self.records = records
        self.closing = closing
        self.failure: UserError | OSError | None = None

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Let what a user can cause in a `with` block end this run, and no other."""
        try:
            yield
        except (UserError, OSError) as error:
            self.failure = error
            self.closing.__exit__(type(error), error, error.__traceback__)

    def fits(self, other: "Run") -> bool:
        """Tell whether two runs of configs that fit can be trained by one program from here on."""
        mine, others = (static_of(run.rules) for run in (self, other))
        return self.iteration == other.iteration and bool(eqx.tree_equal(mine, others))


def groups_of(runs: Sequence[Run]) -> list[list[Run]]:
    """Sort runs into groups that can be trained by one program."""
    groups: list[list[Run]] = []
    for run in runs:
        fitting = next((group for group in groups if group[0].fits(run)), None)
        if fitting is None:
            groups.append([run])
        else:
            fitting.append(run)
    return groups


def train_group(runs: Sequence[Run]) -> None:
    """Train runs chunk by chunk, and record test points and checkpoints of each.

    A run that fails is closed and keeps its failure; the others go on.
    """
    config, n_iters, iteration = runs[0].config, runs[0].n_iters, runs[0].iteration
    dataset = runs[0].dataset
    capacity = chunk_capacity(n_iters, config.test_every)
    save_every, save_seconds = checkpoint_distance(config)
    stops = [every for every in (config.test_every, config.keep_every, save_every) if every]
    clock = runs[0].records.clock
    seconds_per_step = None
    states = join([run.states for run in runs])
    take_steps, test_networks = stepper(runs, dataset, capacity), tester(config, dataset)
    progress = tqdm(total=n_iters, initial=iteration, disable=None, leave=False, unit="it")
    for run in runs:
        run.closing.enter_context(run.records.outcome())
    with progress, deferred_signals() as stop_request:
        while iteration < n_iters and still_going(runs):
            first = iteration + 1
            iteration = next_stop(
                iteration, n_iters, stops, capacity, seconds_per_step, save_seconds
            )
            before = clock.seconds["train"]
            with counted_as("train", runs):
                states, metrics, finite = take_steps(first, iteration, states)
            seconds_per_step = (clock.seconds["train"] - before) / (iteration - first + 1)
            tests = None
            if iteration % config.test_every == 0 or iteration == n_iters:
                with counted_as("evaluate", runs):
                    tests = test_networks(states)
            record_chunk(runs, first, iteration, metrics, finite, tests, states, stop_request)
            progress.update(iteration - first + 1)
            stop_request.obey()
    for run in still_going(runs):
        with run.alone():
            run.closing.close()


def stepper(
    runs: Sequence[Run], dataset: Dataset, capacity: int
) -> Callable[
    [int, int, TrainState], tuple[TrainState, StepMetrics, Bool[np.ndarray, " replicas"]]
]:
    """Make the function that trains all runs from one iteration to another.

    Each seed of each run has its own batches, in the order that its seed fixes.
    """
    config = runs[0].config
    n_examples = len(dataset.train_images)
    images, labels = jax.device_put((dataset.train_images, dataset.train_labels))
    scale = pixel_scale(config.data.mean, config.data.std)
    rules = join([run.rules for run in runs])
    seeds = [run.config.seed + k for run in runs for k in range(config.n_seeds)]

    def take_steps(first: int, last: int, states: TrainState):
        indices = np.zeros((len(seeds), capacity, config.batch_size), np.int32)
        batches = functools.cache(batch_indices)  # many runs of a sweep share a seed
        for rows, seed in zip(indices, seeds, strict=True):
            rows[: last - first + 1] = batches(seed, first, last, n_examples, config.batch_size)
        steps = jax.device_put((indices, np.int32(last - first + 1)))
        states, metrics, finite = jax.block_until_ready(
            train_replicas((images, labels, *steps, scale, rules), states)
        )
        return states, *jax.device_get((metrics, finite))

    return take_steps


def tester(config: TrainConfig, dataset: Dataset) -> Callable[[TrainState], list[NetworkTest]]:
    """Make the function that tests every seed of every run."""
    scale = pixel_scale(config.data.mean, config.data.std)
    images, labels = jax.device_put(dataset.test_images), dataset.test_labels
    means = class_means(dataset.test_images, labels, dataset.n_classes)

    def test_networks(states: TrainState) -> list[NetworkTest]:
        return evaluate_replicas(states.generator, states.amortiser, images, labels, means, scale)

    return test_networks


def record_chunk(
    runs: Sequence[Run],
    first: int,
    last: int,
    metrics: StepMetrics,
    finite: Bool[np.ndarray, " replicas"],
    tests: list[NetworkTest] | None,
    states: TrainState,
    stop_request: StopRequest,
) -> None:
    """Note a chunk in each run's records: metrics, and the test or a checkpoint where due."""
    host_states = None
    n_seeds = runs[0].config.n_seeds
    for number, run in enumerate(runs):
        if run.failure is not None:
            continue
        own = slice(number * n_seeds, (number + 1) * n_seeds)
        with run.alone():
            run.records.steps(first, last, take(metrics, own), finite[own], test=tests is not None)
            if tests or stop_request or run.records.checkpoint_is_due(last):
                host_states = host_states or jax.device_get(states)
                state = take(host_states, own if n_seeds > 1 else number)
                if tests:
                    run.records.test_point(last, tests[own], state)
                else:
                    run.records.checkpoint(last, state)
        if getattr(run.failure, "ends_sweep", False):
            end_with(run, runs)


def end_with(failed: Run, runs: Sequence[Run]) -> None:
    """End the runs that train together with one that is to end its sweep."""
    for run in still_going(runs):
        with run.alone():
            raise SweepEndedError(f"ended with {os.path.relpath(failed.directory)}, which failed")


def still_going(runs: Sequence[Run]) -> list[Run]:
    """List the runs that have not failed."""
    return [run for run in runs if run.failure is None]


@contextlib.contextmanager
def counted_as(phase: str, runs: Sequence[Run]) -> Iterator[None]:
    """Count the seconds of a `with` block to a phase of every run that is still going."""
    with contextlib.ExitStack() as phases:
        for run in still_going(runs):
            phases.enter_context(run.records.clock.phase(phase))
        yield
