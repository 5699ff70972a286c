"""Small models and settings, as several test files need them."""

from collections.abc import Sequence

import equinox as eqx
import jax

from bpc_cli.core import inference, learning
from bpc_cli.core.algorithms import inference_weights, learning_weights
from bpc_cli.core.architectures import Mlp
from bpc_cli.core.inference import Inference
from bpc_cli.core.learning import Learning
from bpc_cli.core.models import Model, make_model
from bpc_cli.core.optimisers import Optimiser, make_optimiser, scaled
from bpc_cli.data.pixels import PixelScale
from bpc_cli.options.algorithms import ALGORITHMS

# Compiled whole, as users would: one operation at a time, each would be compiled on its own.
train_step = eqx.filter_jit(learning.train_step)
infer_each = eqx.filter_jit(inference.infer_each)


def small_model(
    seed: int,
    sizes: Sequence[int],
    act_fn: str,
    scale: PixelScale | None = None,
    label_loss: str = "squared",
    **more,
) -> Model:
    """Make a model whose states have the sizes given, label first."""
    label, *hidden, image = map(int, sizes)
    return make_model(
        Mlp(tuple(hidden), len(sizes) - 1, act_fn, **more),
        jax.random.PRNGKey(seed),
        label,
        (1, image, 1),
        scale or PixelScale(),
        label_loss,
    )


def inference_of(
    alphas: Sequence, optimiser: Optimiser, n_steps: int, algorithm: str = "bpc", **more
) -> Inference:
    """Make an algorithm's inference, of α_f and α_b."""
    row = ALGORITHMS[algorithm]
    init = more.pop("init", None) or row.init
    return Inference(inference_weights(row, *alphas), optimiser, n_steps, init, **more)


def learning_of(alphas: Sequence, optimiser: Optimiser, algorithm: str = "bpc") -> Learning:
    """Make an algorithm's learning, of α_f and α_b."""
    row = ALGORITHMS[algorithm]
    return Learning(learning_weights(row, *alphas), optimiser, row.by_backpropagation)


def sgd(rate: float, batch: int | None = None) -> Optimiser:
    """Make plain gradient descent; of a batch's mean energy, where its size is given."""
    optimiser = make_optimiser("sgd", rate)
    return optimiser if batch is None else scaled(optimiser, 1 / batch)
