"""bpc-train: config → data → networks → chunks of steps → records."""

import contextlib
import dataclasses
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bpc_cli.command_line import run_command, save_composed_config
from bpc_cli.config import TrainConfig, n_inference_steps
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
    """Train one network as a config says, and leave a run directory.

    Raises:
        UserError: if the config cannot be run (nothing is left behind then), or if the training
            diverges (the run directory then holds everything up to that iteration).
    """
    with garbage_left_alone():
        from bpc_cli.compilation import configure_jax
        from bpc_cli.data import load_dataset
        from bpc_cli.records import Records
        from bpc_cli.rundir import RunDirectory, refuse_taken
        from bpc_cli.timing import PhaseClock

    refuse_taken(directory)
    configure_jax(**dataclasses.asdict(config.compute))
    with PhaseClock(began) as clock:
        with garbage_left_alone():
            dataset = load_dataset(
                config.data.name, data_dir=config.data.dir, archive_dir=config.data.archive_dir
            )
            n_iters = n_iterations(config, len(dataset.train_images))
            refuse_what_exceeds_memory(config, dataset)
            rules, state = set_up(config, n_iters, dataset)
        with RunDirectory(directory, "train.log") as run:
            save_composed_config(config, directory)
            if dataset.fallback:
                run.warn(dataset.fallback)
            train_and_record(
                config, n_iters, dataset, rules, state, Records(run, clock, config, dataset)
            )
            if dataset.fallback:
                run.warn(dataset.fallback)


def train_and_record(
    config: TrainConfig,
    n_iters: int,
    dataset: "Dataset",
    rules: "Rules",
    state: "TrainState",
    records: "Records",
) -> None:
    """Train chunk by chunk, and record a test point after each."""
    import jax
    from tqdm import tqdm

    from bpc_cli.data import batch_indices
    from bpc_cli.images import pixel_scale
    from bpc_cli.interrupts import deferred_interrupts
    from bpc_cli.learning import train_chunk
    from bpc_cli.metrics import class_means, evaluate_networks

    scale = pixel_scale(config.data.mean, config.data.std)
    train_images, train_labels, test_images = jax.device_put(
        (dataset.train_images, dataset.train_labels, dataset.test_images)
    )
    means = class_means(dataset.test_images, dataset.test_labels, dataset.n_classes)
    progress = tqdm(total=n_iters, disable=None, leave=False, unit="it")
    with records.outcome(), progress, deferred_interrupts() as raise_if_interrupted:
        for first, last in chunks(n_iters, config.test_every):
            with records.clock.phase("train"):
                indices = jax.numpy.asarray(
                    batch_indices(
                        config.seed, first, last, len(dataset.train_images), config.batch_size
                    )
                )
                state, metrics, finite = jax.block_until_ready(
                    train_chunk((train_images, train_labels, indices, scale, rules), state)
                )
            records.steps(first, metrics, weights_are_finite=bool(finite))
            with records.clock.phase("evaluate"):
                test = evaluate_networks(
                    state.generator, state.amortiser, test_images, dataset.test_labels, means, scale
                )
            records.test_point(last, test, state)
            progress.update(last - first + 1)
            raise_if_interrupted()


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


def chunks(n_iters: int, test_every: int) -> Iterator[tuple[int, int]]:
    """Split iterations 1 … n_iters at the test points: every `test_every`, and the last."""
    for first in range(1, n_iters + 1, test_every):
        yield first, min(first + test_every - 1, n_iters)


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
