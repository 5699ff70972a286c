"""Prediction errors and the bidirectional energy of one sample: pure functions, one per equation.

Oliviers, Tang & Bogacz 2025 (arXiv 2505.23415). States are s = (label, z_0, …, image), and layers
are indexed from the label side, as in `core.models`. `jax.vmap` makes a batch of a sample.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bpc_cli.core.expansion import NOTHING_EXPANDED, Expansions
from bpc_cli.core.models import Model

LayerStates = Sequence[Float[Array, "..."]]
Weight = int | float | Float[Array, "#depth"] | Float[Array, ""]


class EnergyWeights(NamedTuple):
    """The weights of both directions' prediction errors; a direction of None is left out.

    Attributes:
        forward: α_f, the generator's: one number, or one for each layer, label side first.
        backward: α_b, the amortiser's, likewise.
    """

    forward: Weight | None = 1.0
    backward: Weight | None = 1.0


def generator_errors(model: Model, states: LayerStates) -> list[Float[Array, "..."]]:
    """Compute the generator's prediction errors, s_{i+1} - W_i φ(s_i): at z_0, …, the image.

    On the label's side of a bimodal model's top they are s_i - W_i φ(s_{i+1}): at the label, ….
    """
    return [
        states[i] - layer(states[i + 1]) if i < model.top else states[i + 1] - layer(states[i])
        for i, layer in enumerate(model.generator)
    ]


def amortiser_errors(model: Model, states: LayerStates) -> list[Float[Array, "..."]]:
    """Compute the amortiser's prediction errors, s_i - V_i φ(s_{i+1}): at the label, z_0, ….

    On the label's side of a bimodal model's top they are s_{i+1} - V_i φ(s_i): at z_0, …, the top.
    """
    return [
        states[i + 1] - layer(states[i]) if i < model.top else states[i] - layer(states[i + 1])
        for i, layer in enumerate(model.amortiser)
    ]


def energy_terms(
    model: Model,
    states: LayerStates,
    weights: EnergyWeights,
    expansions: Expansions = NOTHING_EXPANDED,
) -> tuple[Float[Array, " depth"], Float[Array, " depth"]]:
    """Compute a sample's energy terms, one per layer and direction: α ½ ‖prediction error‖².

    With the label loss "cross_entropy", the term at the label is
    α (-Σ label · log softmax(prediction)): the label's distribution is categorical, not Gaussian.

    Args:
        model: the model.
        states: label, z_0, …, image.
        weights: α_f and α_b.
        expansions: terms at clamped ends that are computed without the end.

    Returns:
        The generator's terms (z_0, …, image) and the amortiser's (label, z_0, …), layer by layer; 0
        in a direction that is left out.

    Raises:
        ValueError: if the states are not of the model's shapes.
    """
    if [state.shape for state in states] != model.state_shapes:
        raise ValueError(
            f"states of one sample are wanted, of shapes {model.state_shapes}, not "
            f"{[state.shape for state in states]}: jax.vmap makes a batch of a sample"
        )
    forward = backward = jnp.zeros(model.depth, states[-1].dtype)
    if weights.forward is not None:
        errors = generator_errors(model, states)
        terms = _terms(model, states, errors, of_label=model.top > 0)
        if expansions.of_image:
            terms[-1] = expansions.of_image(states[-2])
        if expansions.of_label and model.top:
            terms[0] = expansions.of_label(states[1])
        forward = weights.forward * jnp.stack(terms)
    if weights.backward is not None:
        errors = amortiser_errors(model, states)
        terms = _terms(model, states, errors, of_label=model.top == 0)
        if expansions.of_label and not model.top:
            terms[0] = expansions.of_label(states[1])
        backward = weights.backward * jnp.stack(terms)
    return forward, backward


def _terms(
    model: Model, states: LayerStates, errors: list[Float[Array, "..."]], *, of_label: bool
) -> list[Float[Array, ""]]:
    """Compute the terms of a direction's errors, the first of which may be the label's."""
    terms = [half_square_norm(error) for error in errors]
    if of_label:
        terms[0] = label_term(model, states[0], states[0] - errors[0])
    return terms


def output_terms(
    model: Model,
    label: Float[Array, " label"],
    image: Float[Array, "*image"],
    weights: EnergyWeights,
) -> tuple[Float[Array, " depth"], Float[Array, " depth"]]:
    """Compute the terms of both passes' outputs alone, which backpropagation learns from.

    They are α_f ½ ‖image - generated image‖² and α_b ½ ‖label - predicted label‖²: the energy's
    terms at the clamped ends, with every hidden state what the direction that is measured predicts.

    Returns:
        As `energy_terms`, 0 at hidden layers.
    """
    forward = backward = jnp.zeros(model.depth, image.dtype)
    if weights.forward is not None:
        term = half_square_norm(image - model.feed_down(label)[-1])
        forward = weights.forward * forward.at[-1].set(term)
    if weights.backward is not None:
        term = label_term(model, label, model.feed_up(image)[0])
        backward = weights.backward * backward.at[0].set(term)
    return forward, backward


def energy(
    model: Model,
    states: LayerStates,
    weights: EnergyWeights,
    expansions: Expansions = NOTHING_EXPANDED,
) -> Float[Array, ""]:
    """Compute a sample's bidirectional energy F, the sum of all `energy_terms`.

    F = α_f ½ Σ_i ‖s_{i+1} - W_i φ(s_i)‖² + α_b ½ Σ_i ‖s_i - V_i φ(s_{i+1})‖²
    (Oliviers, Tang & Bogacz 2025). A bimodal model's is the sum of two chains' that share the top.

    Args:
        model: the model.
        states: label, z_0, …, image.
        weights: α_f and α_b.
        expansions: as in `energy_terms`.
    """
    forward, backward = energy_terms(model, states, weights, expansions)
    return jnp.sum(forward) + jnp.sum(backward)


def label_term(
    model: Model, top: Float[Array, " top"], predicted: Float[Array, " top"]
) -> Float[Array, ""]:
    """Compute how far a prediction of the label's state is off.

    Args:
        model: its `label_loss` measures the label's part; latent units are Gaussian.
        top: a label, one-hot or a distribution over classes, and any latent units.
        predicted: the prediction; the label's part is of logits under "cross_entropy".
    """
    if model.label_loss != "cross_entropy":
        return half_square_norm(top - predicted)
    n = model.n_classes
    label = -jnp.sum(top[:n] * jax.nn.log_softmax(predicted[:n]))
    return label + half_square_norm(top[n:] - predicted[n:]) if model.n_latent else label


def half_square_norm(error: Float[Array, "*shape"]) -> Float[Array, ""]:
    """Compute ½ ‖error‖²."""
    return 0.5 * jnp.sum(error**2)
