"""How many inference steps a trained model's activities take to converge."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, PRNGKeyArray, UInt8

from bpc_cli.core.clamping import clamp_both, clamp_classes, clamp_images
from bpc_cli.core.inference import Inference, infer_each
from bpc_cli.core.models import Model

MOST_STEPS = 500
TOLERANCE = 1e-3  # of the energy's whole change
_RESOLUTION = 2e-6  # of an energy in single precision
_STILL_MOVING = 0.9  # of all steps: what settles only after these may not have come to its end


class Convergence(NamedTuple):
    """How long inference has to be followed.

    Attributes:
        n_steps: the steps to take.
        is_reached: whether energies no longer change after these.
    """

    n_steps: int
    is_reached: bool


@eqx.filter_jit
def follow_energies(
    model: Model,
    images: UInt8[Array, "images pixels"],
    labels: Integer[Array, " images"],
    inference: Inference,
    key: PRNGKeyArray | None = None,
) -> dict[str, Float[Array, " times"]]:
    """Follow the mean energy of each kind of relaxation, for all of inference's steps.

    Args:
        model: the model.
        images: flattened; a few are enough.
        labels: their class numbers.
        inference: how activities are initialised and relaxed, whatever its tolerance.
        key: fixes noise that they are initialised by.

    Returns:
        Energies before each step and at the end, by what is clamped: "both" image and label, the
        "image", "half" of the image's numbers, and each class's "label", if there are labels.
    """
    states = model.to_states(images)
    all_steps = dataclasses.replace(inference, tolerance=None)
    generating = dataclasses.replace(all_steps, init="generative")
    image_alone = clamp_images(model, states)
    known = (jnp.arange(states.size) % states[0].size < states[0].size // 2).reshape(states.shape)
    half = image_alone._replace(image=jnp.where(known, states, 0), image_known=known)
    relaxed = {
        "both": infer_each(model, clamp_both(model, model.one_hot(labels), states), all_steps, key),
        "image": infer_each(model, image_alone, all_steps, key),
        "half": infer_each(model, half, all_steps, key),
    }
    if model.n_classes:
        relaxed["label"] = infer_each(model, clamp_classes(model), generating)
    return {name: each.relaxation.energies.mean(axis=0) for name, each in relaxed.items()}


def find_convergence(curves: Sequence[Float[np.ndarray, " times"]]) -> Convergence:
    """Find the step after which mean energies, as `follow_energies` returns them, have settled."""
    most = len(curves[0]) - 1
    n_steps = max(1, *(settled_from(curve) for curve in curves))
    if n_steps > _STILL_MOVING * most:
        return Convergence(most, False)
    return Convergence(n_steps, True)


def settled_from(energies: Float[np.ndarray, " times"]) -> int:
    """Find the time from which on energies stay within `TOLERANCE` of where they end.

    Gradients are no measure of it: an activity at the kink of a rectifier keeps one.
    """
    energies = np.asarray(energies, np.float64)
    if not np.isfinite(energies).all():
        return len(energies) - 1
    apart = np.abs(energies - energies[-1])
    little = max(TOLERANCE * apart.max(), _RESOLUTION * np.abs(energies).max())
    return int(np.max(np.flatnonzero(apart > little), initial=-1)) + 1
