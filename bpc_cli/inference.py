"""Inference: initialising the hidden activities and relaxing them on the energy."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from bpc_cli.networks import Amortiser, Generator
from bpc_cli.optimisers import Optimiser

STARTS = ("amortised", "generative", "zeros", "noise")
REDUCTIONS = ("mean", "sum")
Activities = list[Float[Array, "batch width"]]


def amortise(
    amortiser: Amortiser, image: Float[Array, "batch image"]
) -> tuple[Activities, Float[Array, "batch label"]]:
    """Initialise the hidden activities by one bottom-up pass.

    Returns:
        Hidden activities z_0, z_1, ... (label side first, before the activation), and the
        pass's output, the predicted label.
    """
    bottom_up = [image]
    for index in reversed(range(amortiser.depth)):
        bottom_up.append(amortiser.predict(index, bottom_up[-1]))
    label, *activities = reversed(bottom_up[1:])
    return activities, label


def generate(generator: Generator, label: Float[Array, "batch label"]) -> Activities:
    """Initialise the hidden activities by one top-down pass."""
    top_down = [label]
    for index in range(generator.depth - 1):
        top_down.append(generator.predict(index, top_down[-1]))
    return top_down[1:]


def start(
    how: str,
    generator: Generator,
    amortiser: Amortiser,
    label: Float[Array, "batch label"],
    image: Float[Array, "batch image"],
    key: PRNGKeyArray | None = None,
) -> Activities:
    """Initialise the hidden activities.

    Args:
        how: "amortised" or "generative" (one pass of either network), "zeros", or "noise"
            (standard normal).
        generator, amortiser: the networks.
        label, image: the clamped ends.
        key: fixes the noise.

    Raises:
        ValueError: if `how` is not one of these, or there is no key for noise.
    """
    if how == "amortised":
        return amortise(amortiser, image)[0]
    if how == "generative":
        return generate(generator, label)
    shapes = [(len(image), layer.weight.shape[1]) for layer in generator.layers[1:]]
    if how == "zeros":
        return [jnp.zeros(shape, image.dtype) for shape in shapes]
    if how != "noise" or key is None:
        raise ValueError(f"activities cannot start from '{how}'; known: {', '.join(STARTS)}")
    keys = jax.random.split(key, max(len(shapes), 1))
    return [
        jax.random.normal(own, shape, image.dtype) for own, shape in zip(keys, shapes, strict=False)
    ]


def relax(
    activities: Activities,
    energy: Callable[[Activities], Float[Array, ""]],
    optimiser: Optimiser,
    n_steps: int,
    gradient_scale: float = 1.0,
) -> tuple[Activities, Float[Array, " n_steps"]]:
    """Relax the activities by gradient steps on an energy whose other arguments are clamped.

    z ← z - step(c ∂F/∂z), `n_steps` times, with a fresh optimiser state. The energy is a mean over
    the batch of B: c = 1 moves each sample's activities at rate/B, and c = B at the rate itself,
    as the sum over samples would.

    Returns:
        The relaxed activities, and the energy before each step.
    """

    def step(carry, _):
        activities, optimiser_state = carry
        value, gradient = jax.value_and_grad(energy)(activities)
        if gradient_scale != 1.0:
            gradient = jax.tree.map(lambda leaf: gradient_scale * leaf, gradient)
        activities, optimiser_state = optimiser.update(gradient, optimiser_state, activities)
        return (activities, optimiser_state), value

    (activities, _), trace = jax.lax.scan(
        step, (activities, optimiser.init(activities)), length=n_steps
    )
    return activities, trace
