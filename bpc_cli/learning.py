"""Learning: one training step, a compiled chunk of steps, and the state that they carry."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, UInt8

from bpc_cli.energy import energy, energy_terms
from bpc_cli.images import PixelScale, normalise
from bpc_cli.inference import amortise, relax
from bpc_cli.networks import Amortiser, Generator, make_networks
from bpc_cli.optimisers import Optimiser
from bpc_cli.replicas import over_replicas


class TrainState(eqx.Module):
    """What one training step hands to the next: both networks and their optimisers' states."""

    generator: Generator
    amortiser: Amortiser
    generator_optimiser_state: PyTree
    amortiser_optimiser_state: PyTree


class Rules(eqx.Module):
    """How a step infers and learns. Numbers here are traced; `n_inference_steps` is compiled in.

    Attributes:
        forward_energy_weight: α_f, the weight of the generator's prediction errors.
        backward_energy_weight: α_b, the weight of the amortiser's prediction errors.
        activity_optimiser: relaxes the hidden activities, from a fresh state for every batch.
        parameter_optimiser: updates each network, with a state of its own for each.
        n_inference_steps: gradient steps on the activities per training step.
    """

    forward_energy_weight: Float[Array, ""]
    backward_energy_weight: Float[Array, ""]
    activity_optimiser: Optimiser
    parameter_optimiser: Optimiser
    n_inference_steps: int = eqx.field(static=True)


class StepMetrics(eqx.Module):
    """What one training step reports, all of it measured before the parameters change.

    Attributes:
        gen_loss: ½ · mean over batch and pixels of (image - generator(label))².
        amort_loss: ½ · mean over batch and classes of (label - amortiser(image))².
        energy_before: F at the amortised activities.
        energy_after: F at the relaxed activities.
        generator_energy: the generator's share of `energy_after`, α_f included.
        amortiser_energy: the amortiser's share of `energy_after`, α_b included.
    """

    gen_loss: Float[Array, "*steps"]
    amort_loss: Float[Array, "*steps"]
    energy_before: Float[Array, "*steps"]
    energy_after: Float[Array, "*steps"]
    generator_energy: Float[Array, "*steps"]
    amortiser_energy: Float[Array, "*steps"]


def make_rules(
    forward_energy_weight: float,
    backward_energy_weight: float,
    activity_optimiser: Optimiser,
    parameter_optimiser: Optimiser,
    n_inference_steps: int,
) -> Rules:
    """Make the rules of a run from plain numbers."""
    return Rules(
        jnp.asarray(forward_energy_weight, jnp.result_type(float)),
        jnp.asarray(backward_energy_weight, jnp.result_type(float)),
        activity_optimiser,
        parameter_optimiser,
        n_inference_steps,
    )


# These programs run once and are slow to optimise: level 1 halves their compilation.
@eqx.filter_jit(compiler_options={"xla_backend_optimization_level": 1})  # pyright: ignore
def make_state(
    key: PRNGKeyArray,
    sizes: tuple[int, ...],
    act_fn: str,
    parameter_optimiser: Optimiser,
    use_bias: bool = False,
) -> TrainState:
    """Make the state before the first step: fresh networks and optimiser states.

    Raises:
        ValueError: if `act_fn` is unknown.
    """
    generator, amortiser = make_networks(key, sizes, act_fn, use_bias=use_bias)
    return start_from(generator, amortiser, parameter_optimiser)


def start_from(
    generator: Generator, amortiser: Amortiser, parameter_optimiser: Optimiser
) -> TrainState:
    """Make the state before the first step from given networks."""
    return TrainState(
        generator,
        amortiser,
        parameter_optimiser.init(eqx.filter(generator, eqx.is_array)),
        parameter_optimiser.init(eqx.filter(amortiser, eqx.is_array)),
    )


def train_step(
    state: TrainState,
    image: Float[Array, "batch image"],
    label: Float[Array, "batch label"],
    rules: Rules,
    predicted_image: Float[Array, "batch image"] | None = None,
) -> tuple[TrainState, StepMetrics]:
    """Take one training step: amortise, relax with image and label clamped, learn.

    The amortiser's bottom-up pass initialises the activities; they take
    `rules.n_inference_steps` gradient steps on the energy F; then each network takes one
    step of its own optimiser on the gradient of F at the relaxed activities.

    Args:
        state: networks and optimiser states before the step.
        image: the batch's images in normalised units.
        label: the batch's one-hot labels.
        rules: energy weights, optimisers and number of inference steps.
        predicted_image: `state.generator(label)`, where the caller has it cheaper.
    """
    activities, predicted_label = amortise(state.amortiser, image)
    if predicted_image is None:
        predicted_image = state.generator(label)

    def energy_of(activities):
        return energy(
            state.generator,
            state.amortiser,
            label,
            activities,
            image,
            rules.forward_energy_weight,
            rules.backward_energy_weight,
        )

    def terms_of(networks):
        generator, amortiser = networks
        forward, backward = energy_terms(
            generator,
            amortiser,
            label,
            relaxed,
            image,
            rules.forward_energy_weight,
            rules.backward_energy_weight,
        )
        return jnp.sum(forward) + jnp.sum(backward), (jnp.sum(forward), jnp.sum(backward))

    relaxed, energy_trace = relax(
        activities, energy_of, rules.activity_optimiser, rules.n_inference_steps
    )
    networks = (state.generator, state.amortiser)
    (energy_after, (forward, backward)), gradients = eqx.filter_value_and_grad(
        terms_of, has_aux=True
    )(networks)

    metrics = StepMetrics(
        gen_loss=0.5 * jnp.mean((image - predicted_image) ** 2),
        amort_loss=0.5 * jnp.mean((label - predicted_label) ** 2),
        energy_before=energy_trace[0] if rules.n_inference_steps else energy_after,
        energy_after=energy_after,
        generator_energy=forward,
        amortiser_energy=backward,
    )
    return _learn(state, gradients, rules.parameter_optimiser), metrics


@eqx.filter_jit(donate="all-except-first")
def train_chunk(
    batches: tuple[
        UInt8[Array, "examples image"],
        Int[Array, " examples"],
        Int[Array, "steps batch"],
        Int[Array, ""],
        PixelScale,
        Rules,
    ],
    state: TrainState,
) -> tuple[TrainState, StepMetrics, Bool[Array, ""]]:
    """Run one compiled chunk of training steps; `state` is donated, so it cannot be used again.

    How many of the rows of indices are trained on is an argument, so chunks of all lengths are one
    program, and a step's bits do not depend on where chunks are cut.

    Args:
        batches: all training images as uint8, their labels as class numbers, one row of example
            indices per step, the number of steps to take (the first rows'), the images' pixel
            scale, and the rules of a step.
        state: networks and optimiser states before the chunk.

    Returns:
        The state after it, the metrics stacked over steps (0 where no step was taken), and whether
        all weights are finite.
    """
    return _take_steps(*batches, state)


@eqx.filter_jit(donate="all-except-first")
def train_replicas(
    batches: tuple[
        UInt8[Array, "examples image"],
        Int[Array, " examples"],
        Int[Array, "replicas steps batch"],
        Int[Array, ""],
        PixelScale,
        Rules,
    ],
    states: TrainState,
) -> tuple[TrainState, StepMetrics, Bool[Array, " replicas"]]:
    """Run one compiled chunk of several networks' training steps at once, as `train_chunk` one's.

    Each replica has its own state, rows of indices and rules, stacked along a leading axis; the
    images, the number of steps and the pixel scale are common to all.
    """
    images, labels, indices, n_steps, scale, rules = batches
    return over_replicas(
        lambda own: _take_steps(images, labels, own[0], n_steps, scale, own[1], own[2]),
        (indices, rules, states),
    )


def _take_steps(
    images: UInt8[Array, "examples image"],
    labels: Int[Array, " examples"],
    indices: Int[Array, "steps batch"],
    n_steps: Int[Array, ""],
    scale: PixelScale,
    rules: Rules,
    state: TrainState,
) -> tuple[TrainState, StepMetrics, Bool[Array, ""]]:
    n_classes = state.generator.layers[0].weight.shape[1]

    def step(state, index):
        image = normalise(images[index], scale)
        one_hot = jnp.eye(n_classes, dtype=image.dtype)
        # Labels are one-hot, so there are no more different predictions than classes.
        predicted_image = state.generator(one_hot)[labels[index]]
        return train_step(state, image, one_hot[labels[index]], rules, predicted_image)

    arrays, static = eqx.partition(state, eqx.is_array)

    def array_step(i, carry):
        arrays, metrics = carry
        state, measured = step(eqx.combine(arrays, static), indices[i])
        metrics = jax.tree.map(lambda column, value: column.at[i].set(value), metrics, measured)
        return eqx.filter(state, eqx.is_array), metrics

    empty = jnp.zeros(len(indices), jnp.result_type(float))
    metrics = StepMetrics(**dict.fromkeys(StepMetrics.__annotations__, empty))
    arrays, metrics = jax.lax.fori_loop(0, n_steps, array_step, (arrays, metrics))
    weights = jax.tree.leaves((arrays.generator, arrays.amortiser))
    finite = jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in weights]).all()
    return eqx.combine(arrays, static), metrics, finite


def _learn(state: TrainState, gradients, optimiser: Optimiser) -> TrainState:
    def step(network, gradient, optimiser_state):
        weights, static = eqx.partition(network, eqx.is_array)
        weights, optimiser_state = optimiser.update(gradient, optimiser_state, weights)
        return eqx.combine(weights, static), optimiser_state

    generator, generator_state = step(
        state.generator, gradients[0], state.generator_optimiser_state
    )
    amortiser, amortiser_state = step(
        state.amortiser, gradients[1], state.amortiser_optimiser_state
    )
    return TrainState(generator, amortiser, generator_state, amortiser_state)
