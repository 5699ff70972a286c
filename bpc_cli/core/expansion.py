"""The energy at a clamped end, expanded around initial activities: steps do not see the end.

Where a layer predicts a clamped state y linearly, W φ(s) + b, the error that inference began with,
e, and s's way from there, δ = φ(s) - φ(s_initial), say what its term is:

½ ‖y - W φ(s) - b‖² = ½ ‖e‖² - δ · Wᵀe + ½ δ · (WᵀW) δ.

That is exact. WᵀW is computed once for a batch and Wᵀe once for a sample; a step of inference then
costs a product with WᵀW alone, whatever the size of y. Around 0 in place of s_initial, ½ ‖y‖² would
take the digits of a small error.
"""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from bpc_cli.core.clamping import Clamping, States
from bpc_cli.core.layers import Dense, Layer
from bpc_cli.core.models import Model


class Expansion(eqx.Module):
    """½ ‖y - layer(state)‖² of a clamped y, as a function of the state.

    Attributes:
        layer: predicts y from the state.
        origin: φ of the initial state.
        at_origin: the function's value there, ½ ‖e‖².
        slope: Wᵀe.
        gram: WᵀW, of all samples.
    """

    layer: Dense
    origin: Float[Array, " in"]
    at_origin: Float[Array, ""]
    slope: Float[Array, " in"]
    gram: Float[Array, "in in"]

    def __call__(self, state: Float[Array, "..."]) -> Float[Array, ""]:
        """Compute the function's value at a state."""
        way = self.layer.activate(state) - self.origin
        return self.at_origin + _quadratic(way, self.slope, self.gram)


class Expansions(NamedTuple):
    """The terms of the energy that are expanded; None: it is not.

    Attributes:
        of_image: the generator's at the image.
        of_label: that of the layer that predicts the label.
    """

    of_image: Expansion | None = None
    of_label: Expansion | None = None


NOTHING_EXPANDED = Expansions()


@jax.custom_jvp
def _quadratic(
    way: Float[Array, " in"], slope: Float[Array, " in"], gram: Float[Array, "in in"]
) -> Float[Array, ""]:
    """Compute ½ δ · G δ - δ · g, whose gradient costs no second product with the symmetric G."""
    return way @ (0.5 * (way @ gram) - slope)


def _quadratic_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    way, slope, gram = primals
    product = way @ gram
    by_way, by_slope, by_gram = tangents
    moved = jnp.zeros_like(way[0])
    if not isinstance(by_way, SymbolicZero):
        moved += (product - slope) @ by_way
    if not isinstance(by_slope, SymbolicZero):
        moved -= way @ by_slope
    if not isinstance(by_gram, SymbolicZero):
        moved += 0.5 * way @ (by_gram @ way)
    return way @ (0.5 * product - slope), moved


_quadratic.defjvp(_quadratic_jvp, symbolic_zeros=True)


def expand_ends(
    model: Model,
    clamping: Clamping,
    initial: States,
    n_steps: int,
    batch_size: int,
    *,
    image: bool,
    label: bool,
) -> Expansions:
    """Expand the energy's terms at ends that are clamped, where inference then costs less.

    Args:
        model: the model.
        clamping: what is known of a sample.
        initial: what is free, as it is initialised.
        n_steps: how many steps inference takes, at most.
        batch_size: how many samples are inferred at once.
        image: whether the energy has the term of the image's prediction.
        label: whether it has that of the label's.
    """
    *inner, last = clamping.complete(initial).layers
    first = inner[0]
    predicts_label = (model.generator if model.top else model.amortiser)[0]
    of_image = of_label = None
    if image and clamping.image_known is None:
        of_image = _expand(model.generator[-1], inner[-1], last, n_steps, batch_size)
    is_squared = model.label_loss == "squared"
    if label and clamping.label_known is None and is_squared and inner[1:]:
        of_label = _expand(predicts_label, inner[1], first, n_steps, batch_size)
    return Expansions(of_image, of_label)


def _expand(
    layer: Layer, state: Array, clamped: Array, n_steps: int, batch_size: int
) -> Expansion | None:
    """Expand a layer's term around a state; None where it is not linear, or this costs more."""
    if not isinstance(layer, Dense):
        return None
    if not pays(math.prod(layer.in_shape), math.prod(layer.out_shape), n_steps, batch_size):
        return None
    weight = layer.scale * layer.weight
    error = (clamped - layer(state)).ravel()
    return Expansion(
        layer,
        origin=layer.activate(state),
        at_origin=0.5 * jnp.sum(error**2),
        slope=error @ weight,
        gram=weight.T @ weight,
    )


def pays(n_in: int, n_out: int, n_steps: int, batch_size: int) -> bool:
    """Whether steps with WᵀW take fewer multiplications than predicting and sending errors back.

    Args:
        n_in: the units that a dense layer reads.
        n_out: the clamped units that it predicts.
        n_steps: how many steps inference takes.
        batch_size: how many samples are inferred at once.
    """
    direct = n_steps * 2 * batch_size * n_in * n_out
    once = n_in**2 * n_out + 2 * batch_size * n_in * n_out
    return once + n_steps * batch_size * n_in**2 < direct
