"""Learning: one training step, and the state that it hands to the next."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from bpc_cli.core.clamping import clamp_both
from bpc_cli.core.energy import EnergyWeights, energy_terms, output_terms
from bpc_cli.core.inference import Inference, Inferred, infer_each
from bpc_cli.core.models import Layers, Model
from bpc_cli.core.optimisers import AnyOptimiser, check_optimiser, descend

_ROUNDING = 1.001  # from one energy to another, with room for rounding


class Learning(eqx.Module):
    """How a model's weights learn.

    Attributes:
        weights: the energy weights of the directions that learn; one of None does not.
        optimiser: updates each direction's layers, with a state of its own for each: any of optax,
            or one of `make_optimiser`, whose numbers are traced.
        by_backpropagation: whether a direction learns end to end from its own output's error.
    """

    weights: EnergyWeights
    optimiser: AnyOptimiser
    by_backpropagation: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        check_optimiser(self.optimiser)


class TrainState(eqx.Module):
    """What one training step hands to the next: the model and both directions' optimiser states."""

    model: Model
    generator_optimiser_state: PyTree
    amortiser_optimiser_state: PyTree


class Batch(NamedTuple):
    """The samples of a training step.

    Attributes:
        label: one-hot labels; of no entries where the model has none.
        image: images in network units.
        label_known: whose labels are clamped; those of others are free. None: everyone's.
        generated: the generator's images of these labels, where they are had cheaper; None: the
            step generates them.
    """

    label: Float[Array, "batch classes"]
    image: Float[Array, "batch *image"]
    label_known: Bool[Array, " batch"] | None = None
    generated: Float[Array, "batch *image"] | None = None


class Observed(NamedTuple):
    """What a training step came by.

    Attributes:
        activities: the batch's relaxed activities.
        gradients: what the model learns from; None where it has no weights.
    """

    activities: list[Float[Array, "batch ..."]]
    gradients: Model


class StepMetrics(eqx.Module):
    """What one training step reports, means over the batch, before the weights change.

    Attributes:
        gen_loss: ½ · mean over pixels of (image - generated image)²; without a label, the image is
            generated from the top state that the amortiser predicts of it.
        amort_loss: ½ · mean over classes of (label - predicted label)²; with the label loss
            "cross_entropy", that in nats; without a label, ½ · mean over latent units of
            (inferred - predicted)².
        energy_before: the energy that activities relax on, as initialised; for bp, both losses.
        energy_after: the same at the relaxed activities.
        generator_energy: the energy that the generator learns from, α_f included.
        amortiser_energy: the energy that the amortiser learns from, α_b included.
        inference_steps: how many steps activities took.
        climbing_fraction: the fraction of samples whose energy inference raised.

    The losses compare with the labels of all images, known to inference or not.
    """

    gen_loss: Float[Array, "*steps"]
    amort_loss: Float[Array, "*steps"]
    energy_before: Float[Array, "*steps"]
    energy_after: Float[Array, "*steps"]
    generator_energy: Float[Array, "*steps"]
    amortiser_energy: Float[Array, "*steps"]
    inference_steps: Float[Array, "*steps"]
    climbing_fraction: Float[Array, "*steps"]


def make_state(model: Model, learning: Learning) -> TrainState:
    """Make the state before a model's first training step."""
    return TrainState(
        model,
        learning.optimiser.init(eqx.filter(model.generator, eqx.is_array)),
        learning.optimiser.init(eqx.filter(model.amortiser, eqx.is_array)),
    )


def train_step(
    state: TrainState,
    batch: Batch,
    inference: Inference,
    learning: Learning,
    key: PRNGKeyArray | None = None,
) -> tuple[TrainState, StepMetrics]:
    """Take one training step: initialise, relax with image and label clamped, learn.

    Each sample's activities are initialised and relaxed on its own energy; then each direction that
    learns takes one step of its optimiser on the gradient of the batch's mean energy at the relaxed
    activities. It is not compiled: `training.train_chunk` is, or wrap it in `equinox.filter_jit`.

    Args:
        state: model and optimiser states before the step.
        batch: the samples.
        inference: how activities are initialised and relaxed.
        learning: how weights learn.
        key: fixes the noise that activities are initialised by.

    Raises:
        ValueError: if labels or images are not of the model's shapes, or are not real numbers.
    """
    state, metrics, _ = observed_train_step(state, batch, inference, learning, key)
    return state, metrics


def observed_train_step(
    state: TrainState,
    batch: Batch,
    inference: Inference,
    learning: Learning,
    key: PRNGKeyArray | None = None,
) -> tuple[TrainState, StepMetrics, Observed]:
    """Take one training step as `train_step` does, and return what it came by as well."""
    clampings = clamp_both(state.model, batch.label, batch.image, batch.label_known)
    inferred = infer_each(state.model, clampings, inference, key, trace=False)

    def mean_energy(model: Model) -> tuple[Array, tuple[Array, Array]]:
        forward, backward = _learnt_terms(model, batch, inferred, learning)
        return forward + backward, (forward, backward)

    (learnt, (forward, backward)), gradients = eqx.filter_value_and_grad(mean_energy, has_aux=True)(
        state.model
    )
    gen_loss, amort_loss = _losses(state.model, batch, inferred)
    first, last = inferred.relaxation.energies[:, 0], inferred.relaxation.energies[:, -1]
    metrics = StepMetrics(
        gen_loss=gen_loss,
        amort_loss=amort_loss,
        energy_before=learnt if learning.by_backpropagation else jnp.mean(first),
        energy_after=learnt if learning.by_backpropagation else jnp.mean(last),
        generator_energy=forward,
        amortiser_energy=backward,
        inference_steps=jnp.mean(inferred.relaxation.n_steps.astype(batch.image.dtype)),
        climbing_fraction=jnp.mean((last > _ROUNDING * first).astype(batch.image.dtype)),
    )
    observed = Observed(inferred.states.activities, gradients)
    return _learn(state, gradients, learning), metrics, observed


def _learnt_terms(
    model: Model, batch: Batch, inferred: Inferred, learning: Learning
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Compute the mean energy over the batch that either direction learns from."""

    def of_sample(label, image, states):
        if learning.by_backpropagation:
            terms = output_terms(model, label, image, learning.weights)
        else:
            terms = energy_terms(model, states.layers, learning.weights)
        return tuple(jnp.sum(direction) for direction in terms)

    forward, backward = jax.vmap(of_sample)(batch.label, batch.image, inferred.states)
    return jnp.mean(forward), jnp.mean(backward)


def _losses(
    model: Model, batch: Batch, inferred: Inferred
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Compute both feedforward passes' losses."""
    predicted = jax.vmap(lambda image: model.feed_up(image)[0])(batch.image)
    generated, n = batch.generated, model.n_classes
    if generated is None:
        tops = model.clamp_label(batch.label)[0] if n else predicted
        generated = jax.vmap(lambda top: model.feed_down(top)[-1])(tops)
    wanted = batch.label if n else inferred.states.label
    predicted = predicted[:, :n] if n else predicted
    amort_loss = 0.5 * jnp.mean((wanted - predicted) ** 2)
    if model.label_loss == "cross_entropy":
        amort_loss = -jnp.mean(jnp.sum(wanted * jax.nn.log_softmax(predicted), axis=1))
    return 0.5 * jnp.mean((batch.image - generated) ** 2), amort_loss


def _learn(state: TrainState, gradients: Model, learning: Learning) -> TrainState:
    def step(layers: Layers, gradient: Layers, optimiser_state: PyTree, weight: Any):
        if weight is None:  # weight decay would change it too
            return layers, optimiser_state
        weights, static = eqx.partition(layers, eqx.is_array)
        weights, optimiser_state = descend(learning.optimiser, gradient, optimiser_state, weights)
        return eqx.combine(weights, static), optimiser_state

    model = state.model
    generator, generator_state = step(
        model.generator,
        gradients.generator,
        state.generator_optimiser_state,
        learning.weights.forward,
    )
    amortiser, amortiser_state = step(
        model.amortiser,
        gradients.amortiser,
        state.amortiser_optimiser_state,
        learning.weights.backward,
    )
    model = eqx.tree_at(lambda m: (m.generator, m.amortiser), model, (generator, amortiser))
    return TrainState(model, generator_state, amortiser_state)
