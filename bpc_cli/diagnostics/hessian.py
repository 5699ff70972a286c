"""The energy's curvature with respect to the activities: how hard inference is."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray
from scipy.sparse.linalg import LinearOperator, eigsh

from bpc_cli.core.clamping import clamp_both
from bpc_cli.core.inference import Inference, initialise
from bpc_cli.core.models import Model
from bpc_cli.diagnostics import Diagnosis, Subject
from bpc_cli.errors import UserError

NEEDS = ("inference",)
RELAXES = ()
MOST_UNITS = 4096
_TOLERANCE = 1e-4  # of the ends of a spectrum, relative


class Curvature(NamedTuple):
    """The eigenvalues of the energy's Hessian with respect to all hidden activities of an image.

    Attributes:
        largest: the largest.
        smallest: the smallest; the energy has no minimum near where it is below 0.
        condition: the largest by the smallest absolute value; None if that is 0, or unknown. Plain
            gradient descent at its best rate takes about so many steps to come e times closer.
        n_negative: how many are below 0; None where both ends alone are known.
        best_rate: the rate of plain gradient descent that comes closest in the worst direction,
            2 / (largest + smallest), per sample; None where there is no minimum.
        residual: of both ends by Lanczos's method the larger ‖H v - λ v‖ by the largest |λ|, for v
            of length 1; None where all eigenvalues were computed.
    """

    largest: float
    smallest: float
    condition: float | None
    n_negative: int | None
    best_rate: float | None
    residual: float | None = None


def curvature(
    model: Model,
    label: Float[Array, " classes"],
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

    Above `MOST_UNITS` hidden units, only the spectrum's two ends are computed, from products of the
    Hessian with vectors.

    Raises:
        ValueError: if there are no hidden units.
    """
    clampings = clamp_both(model, label[None], image[None])
    clamping = jax.tree.map(lambda leaf: leaf[0], clampings)
    flat, unravel = ravel_pytree(initialise(model, clamping, inference.init, key))
    if not len(flat):
        raise ValueError("there are no hidden units, whose energy could curve")

    def energy_of(flat: Float[Array, " units"]) -> Float[Array, ""]:
        return inference.energy(model, clamping, unravel(flat))

    if len(flat) > MOST_UNITS:
        return _ends(energy_of, flat)
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


def _ends(
    energy_of: Callable[[Float[Array, " units"]], Float[Array, ""]], flat: Float[Array, " units"]
) -> Curvature:
    """Compute both ends of the spectrum by Lanczos's method."""

    @jax.jit
    def product(vector: Float[Array, " units"]) -> Float[Array, " units"]:
        return jax.jvp(jax.grad(energy_of), (flat,), (vector,))[1]

    def times(vector: np.ndarray) -> np.ndarray:
        return np.asarray(product(jnp.asarray(vector.ravel(), flat.dtype)), np.float64)

    start = np.random.default_rng(0).normal(size=len(flat))
    make_operator: Any = LinearOperator  # SciPy has no types
    operator = make_operator((len(flat), len(flat)), matvec=times, dtype=np.float64)
    options: Any = {"k": 2, "which": "BE", "tol": _TOLERANCE, "v0": start}
    values, vectors = eigsh(operator, **options)
    residuals = [
        np.linalg.norm(times(vector) - value * vector)
        for value, vector in zip(values, vectors.T, strict=True)
    ]
    smallest, largest = map(float, values)
    return Curvature(
        largest,
        smallest,
        largest / smallest if smallest > 0 else None,
        None,
        2 / (largest + smallest) if smallest > 0 else None,
        float(max(residuals) / np.abs(values).max()),
    )


def diagnose(subject: Subject) -> Diagnosis:
    """Measure the curvature at the test image that is looked at alone.

    Raises:
        UserError: if there is no such image, or the model has no hidden units.
    """
    dataset, number = subject.dataset, subject.image
    if number >= len(dataset.test_images):
        raise UserError(
            f"diagnosis.image must be below {len(dataset.test_images)}, the number of test images"
        )
    label = subject.model.one_hot(jnp.asarray(dataset.test_labels[number], int))
    (image,) = subject.model.to_states(jnp.asarray(dataset.test_images[number : number + 1]))
    try:
        measured = curvature(subject.model, label, image, subject.inference, subject.key)
    except ValueError as error:
        raise UserError(f"diagnostics=[hessian]: {error}") from error
    condition = "infinite" if measured.condition is None else f"{measured.condition:.3g}"
    line = f"of test image {number}, condition number {condition}"
    if measured.n_negative:
        line += f", {measured.n_negative} directions that fall"
    elif measured.smallest < 0:
        line = f"of test image {number}, there are directions that fall"
    return Diagnosis(measured._asdict(), [line], {})
