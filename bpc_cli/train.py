"""bpc-train: config → data → networks → chunks of steps → records."""

import contextlib
import dataclasses
import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bpc_cli.command_line import run_command, save_composed_config
from bpc_cli.config import TrainConfig, checkpoint_distance, n_inference_steps
from bpc_cli.errors import UserError

# JAX is imported inside functions, so that completing or refusing a command line takes no time.
if TYPE_CHECKING:
    from bpc_cli.data import Dataset
    from bpc_cli.learning import Rules, TrainState
    from bpc_cli.records import Records


def main() -> None:
    """Run the `bpc-train` command."""
    run_command(
        "bpc-train",
        "train",
        TrainConfig,
        train,
        about="bpc-train: train a bidirectional predictive coding network.\n"
        "Writes metrics, samples, curves and checkpoints to a run directory under outputs/.",
    )


def train(config: TrainConfig, directory: Path, began: float) -> None:
    """Train one network as a config says, and leave a run directory; go on where one was left.

    Raises:
        UserError: if the config cannot be run (nothing is left behind then), or if the training
            diverges (the run directory then holds everything up to that iteration).
    """
    with garbage_left_alone():
        from bpc_cli.checkpoint import restore
        from bpc_cli.compilation import configure_jax
        from bpc_cli.data import load_dataset
        from bpc_cli.records import Records, device_kind, software_versions
        from bpc_cli.resume import check_fit, find_start
        from bpc_cli.rundir import RunDirectory, claimed, is_finished
        from bpc_cli.timing import PhaseClock

    configure_jax(**dataclasses.asdict(config.compute))
    with claimed(directory), PhaseClock(began) as clock:
        with garbage_left_alone():
            start = find_start(directory, config)
            dataset = load_dataset(
                config.data.name, data_dir=config.data.dir, archive_dir=config.data.archive_dir
            )
            other_software = check_fit(start, dataset.name, software_versions(), device_kind())
            n_iters = n_iterations(config, len(dataset.train_images))
            refuse_fewer_iterations(n_iters, start.iteration)
            if start.iteration == n_iters and is_finished(directory):
                print(f"{os.path.relpath(directory)} holds this run, finished: nothing to do")
                return
            refuse_what_exceeds_memory(config, dataset)
            rules, state = set_up(config, n_iters, dataset)
            if start.checkpoint is not None:
                state = restore(start.checkpoint, state)
        with RunDirectory(directory, start.metrics, start.metrics_bytes) as run:
            save_composed_config(config, directory)
            warnings = [dataset.fallback] if dataset.fallback else []
            for line in start.notices:
                run.say(line)
            for line in [*warnings, *other_software]:
                run.warn(line)
            records = Records(run, clock, config, dataset, start)
            train_and_record(config, n_iters, dataset, rules, state, start.iteration, records)
            for line in warnings:
                run.warn(line)


def train_and_record(
    config: TrainConfig,
    n_iters: int,
    dataset: "Dataset",
    rules: "Rules",
    state: "TrainState",
    iteration: int,
    records: "Records",
) -> None:
    """Train chunk by chunk after `iteration`, and record test points and checkpoints."""
    import jax
    import numpy as np
    from tqdm import tqdm

    from bpc_cli.data import batch_indices
    from bpc_cli.images import pixel_scale
    from bpc_cli.interrupts import deferred_signals
    from bpc_cli.learning import train_chunk
    from bpc_cli.metrics import class_means, evaluate_networks
    from bpc_cli.pacing import chunk_capacity, next_stop

    scale = pixel_scale(config.data.mean, config.data.std)
    train_images, train_labels, test_images = jax.device_put(
        (dataset.train_images, dataset.train_labels, dataset.test_images)
    )
    n_examples = len(dataset.train_images)
    means = class_means(dataset.test_images, dataset.test_labels, dataset.n_classes)
    capacity = chunk_capacity(n_iters, config.test_every)
    save_every, save_seconds = checkpoint_distance(config)
    stops = [every for every in (config.test_every, config.keep_every, save_every) if every]
    seconds_per_step = None
    progress = tqdm(total=n_iters, initial=iteration, disable=None, leave=False, unit="it")
    with records.outcome(), progress, deferred_signals() as stop_request:
        while iteration < n_iters:
            first = iteration + 1
            iteration = next_stop(
                iteration, n_iters, stops, capacity, seconds_per_step, save_seconds
            )
            before = records.clock.seconds["train"]
            with records.clock.phase("train"):
                rows = batch_indices(config.seed, first, iteration, n_examples, config.batch_size)
                indices = np.zeros((capacity, config.batch_size), np.int32)
                indices[: len(rows)] = rows
                steps = jax.device_put((indices, np.int32(len(rows))))
                state, metrics, finite = jax.block_until_ready(
                    train_chunk((train_images, train_labels, *steps, scale, rules), state)
                )
            seconds_per_step = (records.clock.seconds["train"] - before) / len(rows)
            test = iteration % config.test_every == 0 or iteration == n_iters
            records.steps(first, iteration, metrics, weights_are_finite=bool(finite), test=test)
            if test:
                networks = (state.generator, state.amortiser)
                with records.clock.phase("evaluate"):
                    tested = evaluate_networks(
                        *networks, test_images, dataset.test_labels, means, scale
                    )
                records.test_point(iteration, tested, state)
            elif stop_request or records.checkpoint_is_due(iteration):
                records.checkpoint(iteration, state)
            progress.update(len(rows))
            stop_request.obey()


@contextlib.contextmanager
def garbage_left_alone() -> Iterator[None]:
    """Do not look for garbage in a `with` block, nor later among what was made in it.

    Imports and set-up make objects that live on; looking for garbage among them costs a short run a
    sixth of its time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def set_up(config: TrainConfig, n_iters: int, dataset: "Dataset") -> tuple["Rules", "TrainState"]:
    """Build what a config names: the rules of a step, and the networks before the first.

    Raises:
        UserError: for optimisers or schedules that optax does not have or does not accept.
    """
    import jax

    from bpc_cli.learning import make_rules, make_state
    from bpc_cli.networks import layer_sizes
    from bpc_cli.optimisers import make_optimiser

    model, optim, n_steps = config.model, config.optim, n_inference_steps(config)
    try:
        activity_optimiser = make_optimiser(
            optim.activity,
            optim.activity_lr,
            optim.activity_args,
            optim.activity_schedule,
            optim.activity_schedule_args,
            n_steps=max(n_steps, 1),
        )
        parameter_optimiser = make_optimiser(
            optim.param,
            optim.param_lr,
            optim.param_args,
            optim.param_schedule,
            optim.param_schedule_args,
            n_steps=n_iters,
        )
    except ValueError as error:
        raise UserError(f"optim: {error}") from error
    rules = make_rules(
        config.forward_energy_weight,
        config.backward_energy_weight,
        activity_optimiser,
        parameter_optimiser,
        n_steps,
    )
    sizes = layer_sizes(dataset.n_classes, model.width, model.depth, dataset.train_images.shape[1])
    state = make_state(
        jax.random.PRNGKey(config.seed),
        tuple(sizes),
        model.act_fn,
        parameter_optimiser,
        model.use_bias,
    )
    return rules, state


def n_iterations(config: TrainConfig, n_examples: int) -> int:
    """Resolve the number of iterations from `n_epochs` or `n_train_iters`.

    Raises:
        UserError: if not one whole batch fits into the training set.
    """
    if config.batch_size > n_examples:
        raise UserError(
            f"batch_size must be at most {n_examples}, the size of the training set, "
            f"not {config.batch_size}"
        )
    if config.n_epochs is None:
        return config.n_train_iters
    return config.n_epochs * (n_examples // config.batch_size)


def refuse_fewer_iterations(n_iters: int, done: int) -> None:
    """Refuse to end a run before where it has got to.

    Raises:
        UserError: if it has done more iterations than are wanted.
    """
    if done > n_iters:
        raise UserError(
            f"{n_iters} iterations are wanted, and {done} are done: choose a larger n_train_iters, "
            "or another hydra.run.dir"
        )


def refuse_what_exceeds_memory(config: TrainConfig, dataset: "Dataset") -> None:
    """Refuse networks and batches that cannot fit in memory, before anything is allocated.

    Counts float32 weights, their gradients and two moments of each (as Adam keeps), and four
    copies of a batch's states.

    Raises:
        UserError: if that is more than the device has.
    """
    from bpc_cli.memory import device_memory

    model, image_size = config.model, dataset.train_images.shape[1]
    hidden = model.depth - 1
    weights = dataset.n_classes * image_size
    if hidden:
        weights = model.width * (dataset.n_classes + image_size + (hidden - 1) * model.width)
    states = config.batch_size * (dataset.n_classes + hidden * model.width + image_size)
    needed = 4 * (4 * 2 * weights + 4 * states)
    available = device_memory()
    if needed > available:
        raise UserError(
            f"model.width={model.width}, model.depth={model.depth}, "
            f"batch_size={config.batch_size} need about {needed / 2**30:,.1f} GiB, "
            f"and there are {available / 2**30:,.1f} GiB: reduce one of them"
        )


if __name__ == "__main__":
    main()
