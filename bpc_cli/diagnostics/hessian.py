"""The energy's curvature with respect to the activities: how hard inference is."""

from typing import NamedTuple

import jax
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from bpc_cli.core.clamping import Clamping, inference_energy
from bpc_cli.core.rules import Rules
from bpc_cli.evaluation.by_inference import Networks

MOST_UNITS = 4096


class Curvature(NamedTuple):
    """The eigenvalues of the energy's Hessian with respect to all hidden activities of an image.

    Attributes:
        largest: the largest.
        smallest: the smallest; the energy has no minimum near where it is below 0.
        condition: the largest by the smallest absolute value; None if that is 0. Plain gradient
            descent at its best rate takes about so many steps to come e times closer.
        n_negative: how many are below 0.
        best_rate: the rate of plain gradient descent that comes closest in the worst direction,
            2 / (largest + smallest), per sample; None where there is no minimum.
    """

    largest: float
    smallest: float
    condition: float | None
    n_negative: int
    best_rate: float | None


def curvature(
    networks: Networks,
    label: Float[Array, " label"],
    image: Float[Array, " image"],
    rules: Rules,
) -> Curvature:
    """Compute the curvature where an image's activities start, with image and label clamped.

    Args:
        networks: generator and amortiser.
        label: the image's one-hot label.
        image: the image in network units.
        rules: algorithm, energy weights, and what activities start from.

    Raises:
        ValueError: if there are no hidden units, or more than `MOST_UNITS`.
    """
    clamping = Clamping(label[None], image[None])
    free = clamping.begin(rules.start, *networks, rules.key)
    flat, unravel = ravel_pytree(free)
    if not 0 < len(flat) <= MOST_UNITS:
        raise ValueError(f"a Hessian of 1 to {MOST_UNITS} hidden units can be had, not {len(flat)}")

    def energy_of(flat: Float[Array, " units"]) -> Float[Array, ""]:
        return inference_energy(networks, clamping, unravel(flat), rules)

    hessian = np.asarray(jax.jit(jax.hessian(energy_of))(flat), np.float64)
    values = np.linalg.eigvalsh((hessian + hessian.T) / 2)
    largest, smallest = float(values[-1]), float(values[0])
    least = float(np.abs(values).min())
    return Curvature(
        largest,
        smallest,
        float(np.abs(values).max()) / least if least > 0 else None,
        int(np.sum(values < 0)),
        2 / (largest + smallest) if smallest > 0 else None,
    )
