"""Vitals: how large weights, gradients and activities are, layer by layer."""

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from bpc_cli.core.models import Model
from bpc_cli.core.relaxation import root_mean_square


class Vitals(NamedTuple):
    """Root mean squares by layer, label side first.

    Attributes:
        generator_weights, amortiser_weights: of each layer's weights and biases.
        generator_gradients, amortiser_gradients: of the gradient that these learn from; 0 where a
            direction does not learn.
        activities: of each hidden state, relaxed, over a batch.
    """

    generator_weights: Float[Array, "*members depth"]
    amortiser_weights: Float[Array, "*members depth"]
    generator_gradients: Float[Array, "*members depth"]
    amortiser_gradients: Float[Array, "*members depth"]
    activities: Float[Array, "*members hidden"]


def measure_vitals(
    model: Model, gradients: Model, activities: Sequence[Float[Array, "batch ..."]]
) -> Vitals:
    """Measure the vitals of a model that has just taken a training step.

    Args:
        model: the model.
        gradients: what it learnt from, a tree as the model.
        activities: the batch's relaxed activities.
    """
    return Vitals(
        _by_layer(model.generator),
        _by_layer(model.amortiser),
        _by_layer(gradients.generator),
        _by_layer(gradients.amortiser),
        _by_layer(activities),
    )


def _by_layer(trees: Sequence[PyTree]) -> Float[Array, " layers"]:
    sizes = [root_mean_square(eqx.filter(tree, eqx.is_array)) for tree in trees]
    return jnp.stack(sizes) if sizes else jnp.zeros(0)
