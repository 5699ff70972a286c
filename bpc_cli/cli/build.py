"""A config → plain values: the only file below the commands that sees a config's options."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from bpc_cli.cli.architecture import model_maker
from bpc_cli.core.algorithms import inference_weights, learning_weights
from bpc_cli.core.ensembles import stack
from bpc_cli.core.inference import Inference
from bpc_cli.core.layout import split
from bpc_cli.core.learning import Learning, TrainState, make_state
from bpc_cli.core.models import Model
from bpc_cli.core.optimisers import Optimiser, clipped, make_optimiser, scaled
from bpc_cli.core.training import Training
from bpc_cli.data.augmentation import AUGMENTATIONS, Augmentation, Shift
from bpc_cli.data.datasets import Dataset
from bpc_cli.data.examples import labelled_examples, shortened
from bpc_cli.errors import UserError
from bpc_cli.evaluation.metrics import least_generator_loss, tested_metrics
from bpc_cli.options.algorithms import ALGORITHMS
from bpc_cli.options.check import changed_options, check_saved_config, unknown_choice
from bpc_cli.options.combinations import checkpoint_distance, n_inference_steps
from bpc_cli.options.data_groups import TrainDataConfig
from bpc_cli.options.schema import TrainConfig
from bpc_cli.runs.device import count_devices
from bpc_cli.runs.plan import Plan, Schedule
from bpc_cli.runs.run import Ensemble

_MOST_ITERATIONS = 2**31 - 1  # JAX's integers have 32 bits


def where_from(data: TrainDataConfig) -> dict[str, Any]:
    """List where a data set is to be found, as `load_dataset` takes it."""
    return {
        "data_dir": data.dir,
        "archive_dir": data.archive_dir,
        "image_size": data.image_size,
        "channels": data.channels,
    }


def used_part(config: TrainConfig, dataset: Dataset) -> Dataset:
    """Keep what a run uses of a data set.

    Raises:
        UserError: if there are not so many images.
    """
    n_train = config.batch_size if config.overfit_batch else config.data.n_train
    return shortened(dataset, n_train, config.data.n_validation)


def build_plan(config: TrainConfig, dataset: Dataset) -> Plan:
    """Build what a run is to do.

    Raises:
        UserError: if not one whole batch fits into the training set, there are more iterations
            than optimisers count, or fewer devices than are asked for.
    """
    n_examples = len(dataset.train_images)
    if drops_images(config):
        n_examples = int(_labelled(config, dataset, config.seed).sum())
    if config.batch_size > n_examples:
        what = "the size of the training set"
        if drops_images(config):
            what = "the training images whose label is known (data.unlabelled=drop)"
        raise UserError(f"batch_size must be at most {n_examples}, {what}, not {config.batch_size}")
    n_iters = config.n_train_iters
    if config.n_epochs is not None:
        n_iters = config.n_epochs * (n_examples // config.batch_size)
    if n_iters > _MOST_ITERATIONS:
        raise UserError(
            f"{n_iters} iterations are wanted: at most {_MOST_ITERATIONS} can be counted"
        )
    distance = checkpoint_distance(config)
    return Plan(
        seeds=range(config.seed, config.seed + config.n_seeds),
        batch_size=config.batch_size,
        n_devices=_n_devices(config),
        schedule=Schedule(
            n_iters, config.test_every, config.log_every, *distance, config.keep_every
        ),
        dataset=dataset,
        n_examples=n_examples,
        tested=tested_metrics(
            has_label=config.mode != "unsupervised", has_latent=config.model.latent > 0
        ),
        label_loss=config.model.label_loss,
        title=f"forward_energy_weight={config.forward_energy_weight:g}",
        save_samples=config.save_samples,
        figure_formats=config.plots.format,
        ends_sweep=config.on_divergence == "stop",
        on_instability=config.on_instability,
        chance=100 / dataset.n_classes if _learns_to_classify(config) else None,
        least_losses=_least_losses(config, dataset) if config.overfit_batch else {},
        options=dataclasses.asdict(config),
    )


def _n_devices(config: TrainConfig) -> int:
    """Count the devices that a run is to be trained on.

    Raises:
        UserError: if there are fewer, or its seeds and batches cannot be split over them.
    """
    n_devices = count_devices(config.compute.devices)
    try:
        split(config.n_seeds, config.batch_size, n_devices)
    except ValueError as error:
        raise UserError(
            f"compute.devices={config.compute.devices}, n_seeds={config.n_seeds}: {error}"
        ) from error
    return n_devices


def build_ensemble(config: TrainConfig, plan: Plan) -> Ensemble:
    """Build every seed's model, how it trains, and whose labels it knows.

    Raises:
        UserError: for optimisers, schedules or augmentations that do not exist or are not accepted.
    """
    trainings = [build_training(config, seed, plan.schedule.n_iters) for seed in plan.seeds]
    known = trained_on = None
    if config.data.label_fraction < 1:
        known = stack([_labelled(config, plan.dataset, seed) for seed in plan.seeds])
    if drops_images(config) and known is not None:
        trained_on, known = np.stack([np.flatnonzero(each) for each in known]), None
    maker = model_maker(config, plan.dataset.n_classes, plan.dataset.image_shape)
    states = [
        _make_state(maker, jax.random.PRNGKey(seed), training.learning)
        for seed, training in zip(plan.seeds, trainings, strict=True)
    ]
    return Ensemble(stack(trainings), known, trained_on, stack(states))


def drops_images(config: TrainConfig) -> bool:
    """Say whether training images without a known label are left out."""
    return config.data.label_fraction < 1 and config.data.unlabelled == "drop"


def _labelled(config: TrainConfig, dataset: Dataset, seed: int) -> Bool[np.ndarray, " examples"]:
    return labelled_examples(dataset.train_labels, config.data.label_fraction, seed)


# These programs run once and are slow to optimise: level 1 halves their compilation.
@eqx.filter_jit(compiler_options={"xla_backend_optimization_level": 1})  # pyright: ignore
def _make_state(maker: Callable[..., Model], key: PRNGKeyArray, learning: Learning) -> TrainState:
    return make_state(maker(key=key), learning)


def build_training(config: TrainConfig, seed: int, n_iters: int) -> Training:
    """Build how a seed's model trains.

    Args:
        config: a checked config.
        seed: the seed.
        n_iters: training iterations, over which a schedule is stretched.

    Raises:
        UserError: for optimisers, schedules or augmentations that do not exist or are not accepted.
    """
    return Training(
        build_inference(config),
        build_learning(config, n_iters),
        _build_augmentations(config),
        jax.random.PRNGKey(seed),
    )


def build_learning(config: TrainConfig, n_iters: int) -> Learning:
    """Build how a config's weights learn over so many iterations.

    Raises:
        UserError: for optimisers or schedules that optax does not have or does not accept.
    """
    optim, algorithm = config.optim, ALGORITHMS[config.algorithm.name]
    optimiser = _build_optimiser(
        optim.param,
        optim.param_lr,
        optim.param_args,
        optim.param_schedule,
        optim.param_schedule_args,
        n_steps=n_iters,
    )
    if optim.param_clip is not None:
        optimiser = clipped(optimiser, optim.param_clip)
    weights = learning_weights(algorithm, *_energy_weights(config))
    return Learning(weights, optimiser, algorithm.by_backpropagation)


def build_inference(config: TrainConfig) -> Inference:
    """Build how a config's activities are initialised and relaxed.

    Raises:
        UserError: for optimisers or schedules that optax does not have or does not accept.
    """
    optim, inference = config.optim, config.inference
    algorithm, n_steps = ALGORITHMS[config.algorithm.name], n_inference_steps(config)
    optimiser = _build_optimiser(
        optim.activity,
        optim.activity_lr,
        optim.activity_args,
        optim.activity_schedule,
        optim.activity_schedule_args,
        n_steps=max(n_steps, 1),
    )
    if inference.reduction == "mean":  # each sample's part of the batch's mean energy
        optimiser = scaled(optimiser, 1 / config.batch_size)
    return Inference(
        inference_weights(algorithm, *_energy_weights(config)),
        optimiser,
        n_steps,
        inference.init or algorithm.init,
        _array_or_none(inference.tolerance),
        _array_or_none(inference.label_precision or None),
        _array_or_none(inference.latent_precision or None),
    )


def list_changes(config: TrainConfig) -> Callable[[object, Path], list[str]]:
    """Make the function that lists which options of a saved config may not change and do."""

    def changes_since(saved: object, path: Path) -> list[str]:
        return changed_options(check_saved_config(saved, path), config)

    return changes_since


def _learns_to_classify(config: TrainConfig) -> bool:
    has_labels = config.mode != "unsupervised" and config.data.label_fraction > 0
    return has_labels and all(_learning_directions(config, "amortiser"))


def _learning_directions(config: TrainConfig, predicting: str) -> list[bool]:
    """Say of each direction of a pass whether it learns; a bimodal model's passes have both."""
    algorithm = ALGORITHMS[config.algorithm.name]
    learns = {
        "generator": algorithm.generator_learns and config.forward_energy_weight > 0,
        "amortiser": algorithm.amortiser_learns and config.backward_energy_weight > 0,
    }
    return list(learns.values()) if config.model.name == "bimodal" else [learns[predicting]]


def _least_losses(config: TrainConfig, dataset: Dataset) -> dict[str, float]:
    """List the losses that learning one batch lowers, and the least that each can be."""
    least = {}
    if all(_learning_directions(config, "generator")) and config.mode != "unsupervised":
        images, labels = dataset.train_images, dataset.train_labels
        least["gen_loss"] = least_generator_loss(images, labels, config.data.std)
    if _learns_to_classify(config):
        least["amort_loss"] = 0.0
    return least


def _energy_weights(config: TrainConfig) -> tuple[Float[Array, "*depth"], Float[Array, "*depth"]]:
    """Multiply each direction's energy weight by a factor for each layer, if there are any."""

    def weight(number: float, factors: Sequence[float] | None) -> Array:
        weights = number if factors is None else [number * factor for factor in factors]
        return jnp.asarray(weights, jnp.result_type(float))

    inference = config.inference
    return (
        weight(config.forward_energy_weight, inference.forward_layer_weights),
        weight(config.backward_energy_weight, inference.backward_layer_weights),
    )


def _build_augmentations(config: TrainConfig) -> tuple[Augmentation, ...]:
    data = config.data
    if config.overfit_batch:
        return ()
    given = {"noise": data.noise, "crop": data.crop, "flip": 0.5 if data.flip else 0}
    for name, number in ({"shift": data.shift} | given).items():
        if number and name in data.augmentation:
            raise UserError(f"data.{name} and data.augmentation.{name} are both given: choose one")
    augmentations: list[Augmentation] = []
    if data.shift:
        augmentations.append(Shift(data.shift, data.shift_fraction))
    asked = {name: number for name, number in given.items() if number}
    for name, number in (data.augmentation | asked).items():
        if name not in AUGMENTATIONS:
            raise UserError(unknown_choice("data.augmentation", name, list(AUGMENTATIONS)))
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise UserError(f"data.augmentation.{name} must be a number, not {number}")
        try:
            augmentations.append(AUGMENTATIONS[name](number))
        except ValueError as error:
            raise UserError(f"data.augmentation.{name} must be {error}, not {number}") from error
    return tuple(augmentations)


def _build_optimiser(*arguments: Any, **more: Any) -> Optimiser:
    try:
        return make_optimiser(*arguments, **more)
    except ValueError as error:
        raise UserError(f"optim: {error}") from error


def _array_or_none(number: float | None) -> Float[Array, ""] | None:
    return None if number is None else jnp.asarray(number, jnp.result_type(float))
