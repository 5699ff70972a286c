"""The energy's curvature with respect to the activities: how hard inference is."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from bpc_cli.core.clamping import Clamping
from bpc_cli.core.inference import Inference, initialise
from bpc_cli.core.models import Model
from bpc_cli.diagnostics import Diagnosis, Subject
from bpc_cli.errors import UserError

NEEDS_INFERENCE = True
RELAXES = ()
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
    model: Model,
    label: Float[Array, " label"],
    image: Float[Array, "*image"],
    inference: Inference,
    key: PRNGKeyArray | None = None,
) -> Curvature:
    """Compute the curvature where an image's activities are initialised, both ends clamped.

    Args:
        model: the model.
        label: the image's one-hot label.
        image: the image in network units.
        inference: the energy weights, and what activities are initialised by.
        key: fixes noise that they are initialised by.

    Raises:
        ValueError: if there are no hidden units, or more than `MOST_UNITS`.
    """
    clamping = Clamping(label, image)
    flat, unravel = ravel_pytree(initialise(model, clamping, inference.init, key))
    if not 0 < len(flat) <= MOST_UNITS:
        raise ValueError(f"a Hessian of 1 to {MOST_UNITS} hidden units can be had, not {len(flat)}")

    def energy_of(flat: Float[Array, " units"]) -> Float[Array, ""]:
        return inference.energy(model, clamping, unravel(flat))

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


def diagnose(subject: Subject) -> Diagnosis:
    """Measure the curvature at the test image that is looked at alone.

    Raises:
        UserError: if there is no such image, or the model has too many hidden units, or none.
    """
    dataset, number = subject.dataset, subject.image
    if number >= len(dataset.test_images):
        raise UserError(
            f"diagnosis.image must be below {len(dataset.test_images)}, the number of test images"
        )
    label = jnp.eye(dataset.n_classes)[int(dataset.test_labels[number])]
    (image,) = subject.model.to_states(jnp.asarray(dataset.test_images[number : number + 1]))
    try:
        measured = curvature(subject.model, label, image, subject.inference, subject.key)
    except ValueError as error:
        raise UserError(f"diagnostics=[hessian]: {error}") from error
    condition = "infinite" if measured.condition is None else f"{measured.condition:.3g}"
    line = f"of test image {number}, condition number {condition}"
    if measured.n_negative:
        line += f", {measured.n_negative} directions that fall"
    return Diagnosis(measured._asdict(), [line], {})
