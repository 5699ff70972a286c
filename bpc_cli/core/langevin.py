"""Sampling states from the energy by Langevin steps: p(s) ∝ exp(-F(s) / T)."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, PRNGKeyArray

from bpc_cli.core.clamping import Clamping, States, check_ends
from bpc_cli.core.inference import Inference, initialise
from bpc_cli.core.models import Model


class Langevin(eqx.Module):
    """How states are sampled.

    Attributes:
        rate: the size of a step, η.
        noise: the noise's standard deviation in units of √(2η), the square root of the temperature
            T: 1 samples from exp(-F), and 0 is gradient descent.
        n_steps: how many steps a chain takes.
    """

    rate: Float[Array, ""]
    noise: Float[Array, ""]
    n_steps: int = eqx.field(static=True)


class Sampled(NamedTuple):
    """Where a chain ended.

    Attributes:
        states: its states after the last step.
        energies: the energy before each step.
    """

    states: States
    energies: Float[Array, " steps"]


def sample(
    model: Model,
    clamping: Clamping,
    inference: Inference,
    langevin: Langevin,
    key: PRNGKeyArray,
) -> Sampled:
    """Sample what is free in a sample's states, by the unadjusted Langevin algorithm.

    s ← s - η ∂F/∂s + T^½ √(2η) ξ with ξ standard normal, from states that are initialised as
    for inference. No step is rejected: the larger η, the wider what is sampled (Roberts & Tweedie
    1996).

    Args:
        model: the model.
        clamping: what is known.
        inference: its energy, priors included, and how states are initialised; its optimiser and
            steps are not used.
        langevin: the steps.
        key: fixes the noise.

    Raises:
        ValueError: if what is clamped is not of the model's shapes.
    """
    check_ends(model, clamping.label, clamping.image)
    first, key = jax.random.split(key)
    deviation = langevin.noise * jnp.sqrt(2 * langevin.rate)

    def step(free: States, number: Integer[Array, ""]) -> tuple[States, Float[Array, ""]]:
        value, gradient = jax.value_and_grad(lambda free: inference.energy(model, clamping, free))(
            free
        )
        leaves, tree = jax.tree.flatten(free)
        keys = jax.random.split(jax.random.fold_in(key, number), len(leaves))
        moved = [
            leaf - langevin.rate * slope + deviation * jax.random.normal(k, leaf.shape, leaf.dtype)
            for leaf, slope, k in zip(leaves, jax.tree.leaves(gradient), keys, strict=True)
        ]
        return jax.tree.unflatten(tree, moved), value

    free = initialise(model, clamping, inference.init, first)
    free, energies = jax.lax.scan(step, free, jnp.arange(langevin.n_steps))
    return Sampled(clamping.complete(free), energies)


def clamp_for_samples(
    model: Model,
    numbers: Array,
    *,
    label_known: bool,
) -> Clamping:
    """Clamp what samples are of: the label of each class in turn, or nothing.

    Images are free, and initialised with what the generator makes of these labels.

    Args:
        model: the model.
        numbers: a sample's number each; its class is the remainder by the number of classes.
        label_known: whether labels are clamped, or are only what samples are initialised with.
    """
    tops, is_label = model.clamp_label(model.one_hot(numbers % max(model.n_classes, 1)))
    images = jax.vmap(lambda top: model.feed_down(top)[-1])(tops)
    known = None
    if not label_known or model.n_classes == 0:
        known = jnp.zeros(len(numbers), bool)
    elif is_label is not None:
        known = jnp.broadcast_to(is_label, tops.shape)
    return Clamping(tops, images, known, jnp.zeros(images.shape, bool))
