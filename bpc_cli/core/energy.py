"""Prediction errors and the bidirectional energy: pure functions, one per equation.

Oliviers, Tang & Bogacz 2025 (arXiv 2505.23415). Layers are indexed from the label side, as in
`bpc_cli.core.models`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bpc_cli.core.models import Amortiser, Generator

EnergyWeight = float | Float[Array, "#depth"] | Float[Array, ""] | None
LABEL_LOSSES = ("squared", "cross_entropy")


def generator_errors(
    generator: Generator,
    label: Float[Array, "batch label"],
    activities: Sequence[Float[Array, "batch width"]],
    image: Float[Array, "batch image"],
) -> list[Float[Array, "batch target"]]:
    """Compute the generator's prediction errors, `states[i + 1] - W_i φ(states[i])`.

    Returns:
        `depth` arrays: at z_0, z_1, ..., and last at the image.
    """
    states = [label, *activities, image]
    return [states[i + 1] - generator.predict(i, states[i]) for i in range(generator.depth)]


def amortiser_errors(
    amortiser: Amortiser,
    label: Float[Array, "batch label"],
    activities: Sequence[Float[Array, "batch width"]],
    image: Float[Array, "batch image"],
) -> list[Float[Array, "batch target"]]:
    """Compute the amortiser's prediction errors, `states[i] - V_i φ(states[i + 1])`.

    Returns:
        `depth` arrays: first at the label, then at z_0, z_1, ...
    """
    states = [label, *activities, image]
    return [states[i] - amortiser.predict(i, states[i + 1]) for i in range(amortiser.depth)]


def energy_terms(
    generator: Generator,
    amortiser: Amortiser,
    label: Float[Array, "batch label"],
    activities: Sequence[Float[Array, "batch width"]],
    image: Float[Array, "batch image"],
    forward_energy_weight: EnergyWeight,
    backward_energy_weight: EnergyWeight,
    label_loss: str = "squared",
) -> tuple[Float[Array, " depth"], Float[Array, " depth"]]:
    """Compute the energy's terms, one per layer and direction, as means over the batch.

    A term is `α/B Σ_samples ½ ‖prediction error‖²`, α_f for the generator's errors and α_b for
    the amortiser's. A weight may be one for each layer; a direction whose weight is None takes no
    part, and its terms are 0. With the `label_loss` "cross_entropy", the amortiser's term at the
    label is `α_b/B Σ_samples -Σ label · log softmax(prediction)`: the label's distribution is
    categorical there, not Gaussian.

    Returns:
        The generator's terms (z_0, ..., image) and the amortiser's (label, z_0, ...).
    """
    nothing = jnp.zeros(generator.depth, image.dtype)
    forward = backward = nothing
    if forward_energy_weight is not None:
        errors = generator_errors(generator, label, activities, image)
        forward = forward_energy_weight * jnp.stack([half_mean_square_norm(e) for e in errors])
    if backward_energy_weight is not None:
        errors = amortiser_errors(amortiser, label, activities, image)
        terms = [half_mean_square_norm(e) for e in errors]
        terms[0] = label_term(label, errors[0], label_loss)
        backward = backward_energy_weight * jnp.stack(terms)
    return forward, backward


def output_terms(
    generator: Generator,
    amortiser: Amortiser,
    label: Float[Array, "batch label"],
    image: Float[Array, "batch image"],
    forward_energy_weight: EnergyWeight,
    backward_energy_weight: EnergyWeight,
    label_loss: str = "squared",
) -> tuple[Float[Array, " depth"], Float[Array, " depth"]]:
    """Compute the terms of a network's own output alone, which backpropagation learns from.

    They are `α_f/B Σ_samples ½ ‖image - generator(label)‖²` and
    `α_b/B Σ_samples ½ ‖label - amortiser(image)‖²`: the energy's terms at the clamped ends, with
    every hidden activity what the network that is measured makes of its input. `label_loss` is
    that of `energy_terms`.

    Returns:
        As `energy_terms`, 0 at hidden layers.
    """
    nothing = jnp.zeros(generator.depth, image.dtype)
    forward = half_mean_square_norm(image - generator(label))
    backward = label_term(label, label - amortiser(image), label_loss)
    return (
        nothing
        if forward_energy_weight is None
        else forward_energy_weight * nothing.at[-1].set(forward),
        nothing
        if backward_energy_weight is None
        else backward_energy_weight * nothing.at[0].set(backward),
    )


def energy(
    generator: Generator,
    amortiser: Amortiser,
    label: Float[Array, "batch label"],
    activities: Sequence[Float[Array, "batch width"]],
    image: Float[Array, "batch image"],
    forward_energy_weight: EnergyWeight,
    backward_energy_weight: EnergyWeight,
    label_loss: str = "squared",
) -> Float[Array, ""]:
    """Compute the bidirectional energy F, the sum of all `energy_terms`.

    F = 1/B Σ_samples [α_f ½ Σ_i ‖s_{i+1} - W_i φ(s_i)‖² + α_b ½ Σ_i ‖s_i - V_i φ(s_{i+1})‖²],
    with s = (label, z_0, ..., image).
    """
    forward, backward = energy_terms(
        generator,
        amortiser,
        label,
        activities,
        image,
        forward_energy_weight,
        backward_energy_weight,
        label_loss,
    )
    return jnp.sum(forward) + jnp.sum(backward)


def label_term(
    label: Float[Array, "batch label"], error: Float[Array, "batch label"], label_loss: str
) -> Float[Array, ""]:
    """Compute how far the amortiser's prediction of the label is off, as a mean over the batch.

    Args:
        label: one-hot, or a distribution over classes.
        error: the label less its prediction; under "cross_entropy", predictions are logits.
        label_loss: an entry of `LABEL_LOSSES`.
    """
    if label_loss == "cross_entropy":
        return -jnp.sum(label * jax.nn.log_softmax(label - error)) / label.shape[0]
    return half_mean_square_norm(error)


def half_mean_square_norm(error: Float[Array, "batch target"]) -> Float[Array, ""]:
    """Compute the mean over the batch of ½ ‖error‖²."""
    return 0.5 * jnp.sum(error**2) / error.shape[0]
