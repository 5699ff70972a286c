"""Inference: initialising the hidden activities and relaxing them on the energy."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from bpc_cli.core.models import Amortiser, Generator
from bpc_cli.core.optimisers import Optimiser

STARTS = ("amortised", "generative", "zeros", "noise")
REDUCTIONS = ("mean", "sum")
Activities = list[Float[Array, "batch width"]]
Free = TypeVar("Free", bound=PyTree)


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


def square_norms(activities: Activities) -> Float[Array, " batch"]:
    """Compute ‖z‖² of each sample, over all layers."""
    return sum((jnp.sum(activity**2, axis=1) for activity in activities), jnp.zeros(()))


def relative_distance(these: Activities, those: Activities) -> Float[Array, " batch"]:
    """Compute ‖these - those‖ / ‖those‖ of each sample, over all layers; 0 where those are 0."""
    apart = square_norms([a - b for a, b in zip(these, those, strict=True)])
    norm = square_norms(those)
    return jnp.sqrt(jnp.where(norm > 0, apart / jnp.where(norm > 0, norm, 1), 0))


class Relaxation(NamedTuple):
    """What relaxing left.

    Attributes:
        free: what was free, relaxed.
        energies: the energy before each step; at steps that were not taken, that at the end.
        n_steps: how many steps were taken.
        seen: what was observed before each step, and last at the end.
    """

    free: PyTree
    energies: Float[Array, " steps"]
    n_steps: Int[Array, ""] | int
    seen: PyTree = None


def relax(
    free: Free,
    energy: Callable[[Free], Float[Array, ""]],
    optimiser: Optimiser,
    n_steps: int,
    gradient_scale: float = 1.0,
    tolerance: float | Float[Array, ""] | None = None,
    observe: Callable[[Free, Free], PyTree] | None = None,
) -> Relaxation:
    """Relax what is free by gradient steps on an energy whose other arguments are clamped.

    z ← z - step(c ∂F/∂z), `n_steps` times, with a fresh optimiser state. The energy is a mean over
    the batch of B: c = 1 moves each sample's activities at rate/B, and c = B at the rate itself,
    as the sum over samples would.

    Args:
        free: activities and whatever else is free, arrays of a row per sample.
        energy: the energy of what is free.
        optimiser: makes the steps.
        n_steps: how many; with a tolerance, the most.
        gradient_scale: c.
        tolerance: relaxing ends before a step at which the root mean square of all samples' own
            gradients B ∂F/∂z is below this; None: never.
        observe: a function of what is free and of the energy's gradient, computed at every step
            and at the end.

    Raises:
        ValueError: if there are both a tolerance and something to observe.
    """
    if tolerance is not None and observe is not None:
        raise ValueError("what is observed at every step takes all steps: leave tolerance at None")

    def step(free: Free, optimiser_state: PyTree, gradient: Free) -> tuple[Free, PyTree]:
        if gradient_scale != 1.0:
            gradient = jax.tree.map(lambda leaf: gradient_scale * leaf, gradient)
        return optimiser.update(gradient, optimiser_state, free)

    def scanned(carry, _):
        free, optimiser_state = carry
        value, gradient = jax.value_and_grad(energy)(free)
        seen = None if observe is None else observe(free, gradient)
        return step(free, optimiser_state, gradient), (value, seen)

    start = free, optimiser.init(free)
    if tolerance is None:
        (free, _), (energies, seen) = jax.lax.scan(scanned, start, length=n_steps)
        if observe is not None:
            at_the_end = observe(free, jax.grad(energy)(free))
            seen = jax.tree.map(
                lambda rows, row: jnp.concatenate([rows, row[None]]), seen, at_the_end
            )
        return Relaxation(free, energies, n_steps, seen)

    def goes_on(carry):
        _, n_done, _, (_, gradient) = carry
        return (n_done < n_steps) & (root_mean_square(gradient) >= tolerance)

    def once_more(carry):
        (free, state), n_done, energies, (value, gradient) = carry
        free, state = step(free, state, gradient)
        energies = energies.at[n_done].set(value)
        return (free, state), n_done + 1, energies, jax.value_and_grad(energy)(free)

    first = jax.value_and_grad(energy)(free)
    empty = jnp.zeros(n_steps, first[0].dtype)
    (free, _), n_done, energies, (at_the_end, _) = jax.lax.while_loop(
        goes_on, once_more, (start, jnp.zeros((), jnp.int32), empty, first)
    )
    energies = jnp.where(jnp.arange(n_steps) < n_done, energies, at_the_end)
    return Relaxation(free, energies, n_done)


def root_mean_square(gradient: PyTree[Float[Array, "batch _"]]) -> Float[Array, ""]:
    """Compute the root mean square of all samples' own gradients, from those of a batch's mean."""
    leaves = jax.tree.leaves(gradient)
    square = sum(jnp.sum((len(leaf) * leaf) ** 2) for leaf in leaves)
    return jnp.sqrt(square / max(sum(leaf.size for leaf in leaves), 1))
