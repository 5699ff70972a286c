"""What a config names, built: the rules of a step, and networks before the first."""

import jax
import numpy as np
from jaxtyping import Bool

from bpc_cli.core.ensembles import stack
from bpc_cli.core.learning import TrainState, make_state
from bpc_cli.core.models import layer_sizes
from bpc_cli.core.optimisers import Optimiser, make_optimiser
from bpc_cli.core.rules import Rules, make_rules
from bpc_cli.data.datasets import Dataset, labelled_examples
from bpc_cli.errors import UserError
from bpc_cli.options.schema import TrainConfig, layer_weights, n_inference_steps


def build(config: TrainConfig, n_iters: int, dataset: Dataset) -> tuple[Rules, TrainState]:
    """Build what a config names: each seed's rules of a step and networks, stacked.

    Raises:
        UserError: for optimisers or schedules that optax does not have or does not accept.
    """
    model = config.model
    seeds = range(config.seed, config.seed + config.n_seeds)
    fraction, labels = config.data.label_fraction, dataset.train_labels
    rules = [
        build_rules(
            config,
            seed,
            n_inference_steps(config),
            n_iters,
            labelled=None if fraction == 1 else labelled_examples(labels, fraction, seed),
            image_shape=dataset.image_shape,
        )
        for seed in seeds
    ]
    sizes = layer_sizes(dataset.n_classes, model.width, model.depth, dataset.train_images.shape[1])
    states = [
        make_state(
            jax.random.PRNGKey(seed),
            tuple(sizes),
            model.act_fn,
            rules[0].parameter_optimiser,
            model.use_bias,
            model.parameterisation,
            model.generator_act_fn,
        )
        for seed in seeds
    ]
    return stack(rules), stack(states)


def build_rules(
    config: TrainConfig,
    seed: int,
    n_steps: int,
    n_iters: int,
    labelled: Bool[np.ndarray, " examples"] | None = None,
    image_shape: tuple[int, int, int] | None = None,
) -> Rules:
    """Build the rules of a seed's steps.

    Args:
        config: a checked config.
        seed: the seed.
        n_steps: gradient steps on the activities.
        n_iters: training iterations, over which a schedule is stretched.
        labelled: which training examples' labels are known; None: all.
        image_shape: height, width and channels of a training image; None: there is no training.

    Raises:
        UserError: for optimisers or schedules that optax does not have or does not accept.
    """
    inference = config.inference
    activity_optimiser, parameter_optimiser = _build_optimisers(config, n_steps, n_iters)
    return make_rules(
        layer_weights(config.forward_energy_weight, inference.forward_layer_weights),
        layer_weights(config.backward_energy_weight, inference.backward_layer_weights),
        activity_optimiser,
        parameter_optimiser,
        n_steps,
        algorithm=config.algorithm.name,
        start=inference.start,
        reduction=inference.reduction,
        seed=seed,
        label_loss=config.model.label_loss,
        tolerance=inference.tolerance,
        input_noise=config.data.noise,
        labelled=labelled,
        label_decay=inference.label_decay,
        shift=config.data.shift if image_shape else 0,
        shift_share=config.data.shift_share,
        image_shape=image_shape,
    )


def _build_optimisers(
    config: TrainConfig, n_steps: int, n_iters: int
) -> tuple[Optimiser, Optimiser]:
    optim = config.optim
    try:
        return (
            make_optimiser(
                optim.activity,
                optim.activity_lr,
                optim.activity_args,
                optim.activity_schedule,
                optim.activity_schedule_args,
                n_steps=max(n_steps, 1),
            ),
            make_optimiser(
                optim.param,
                optim.param_lr,
                optim.param_args,
                optim.param_schedule,
                optim.param_schedule_args,
                n_steps=n_iters,
                clip=optim.param_clip,
            ),
        )
    except ValueError as error:
        raise UserError(f"optim: {error}") from error
