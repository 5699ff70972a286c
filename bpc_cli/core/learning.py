"""Learning: one training step, a compiled chunk of steps, and the state that they carry."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, UInt8

from bpc_cli.core.clamping import Clamping, infer, inference_energy
from bpc_cli.core.energy import energy_terms, label_term, output_terms
from bpc_cli.core.ensembles import over_replicas
from bpc_cli.core.inference import amortise
from bpc_cli.core.models import Amortiser, Generator, make_networks
from bpc_cli.core.optimisers import Optimiser
from bpc_cli.core.rules import Rules
from bpc_cli.data.pixels import PixelScale, normalise, shifted
from bpc_cli.options.algorithms import ALGORITHMS


class TrainState(eqx.Module):
    """What one training step hands to the next: both networks and their optimisers' states."""

    generator: Generator
    amortiser: Amortiser
    generator_optimiser_state: PyTree
    amortiser_optimiser_state: PyTree


class StepMetrics(eqx.Module):
    """What one training step reports, all of it measured before the parameters change.

    Attributes:
        gen_loss: ½ · mean over batch and pixels of (image - generator(label))².
        amort_loss: ½ · mean over batch and classes of (label - amortiser(image))²; with the label
            loss "cross_entropy", that in nats, a mean over the batch.
        energy_before: the energy that activities relax on, where they start; for bp, both losses.
        energy_after: the same at the relaxed activities.
        generator_energy: the energy that the generator learns from, α_f included.
        amortiser_energy: the energy that the amortiser learns from, α_b included.
        inference_steps: how many steps activities took.

    The losses compare with the labels of all images, known to inference or not.
    """

    gen_loss: Float[Array, "*steps"]
    amort_loss: Float[Array, "*steps"]
    energy_before: Float[Array, "*steps"]
    energy_after: Float[Array, "*steps"]
    generator_energy: Float[Array, "*steps"]
    amortiser_energy: Float[Array, "*steps"]
    inference_steps: Float[Array, "*steps"]


# These programs run once and are slow to optimise: level 1 halves their compilation.
@eqx.filter_jit(compiler_options={"xla_backend_optimization_level": 1})  # pyright: ignore
def make_state(
    key: PRNGKeyArray,
    sizes: tuple[int, ...],
    act_fn: str,
    parameter_optimiser: Optimiser,
    use_bias: bool = False,
    parameterisation: str = "standard",
    generator_act_fn: str | None = None,
) -> TrainState:
    """Make the state before the first step: fresh networks and optimiser states.

    Raises:
        ValueError: if `act_fn` or `parameterisation` is unknown.
    """
    generator, amortiser = make_networks(
        key,
        sizes,
        act_fn,
        use_bias=use_bias,
        parameterisation=parameterisation,
        generator_act_fn=generator_act_fn,
    )
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
    key: PRNGKeyArray | None = None,
    label_known: Bool[Array, " batch"] | None = None,
) -> tuple[TrainState, StepMetrics]:
    """Take one training step: initialise, relax with image and label clamped, learn.

    The activities start from a pass of a network; they take `rules.n_inference_steps` gradient
    steps on the algorithm's energy; then each network that learns takes one step of its own
    optimiser on the gradient of its energy at the relaxed activities.

    Args:
        state: networks and optimiser states before the step.
        image: the batch's images in normalised units.
        label: the batch's one-hot labels.
        rules: algorithm, energy weights, optimisers and number of inference steps.
        predicted_image: `state.generator(label)`, where the caller has it cheaper.
        key: fixes the noise that activities start from; None for `rules.key`.
        label_known: whose labels are clamped; those of others are free, and relax with their
            activities; None: everyone's.
    """
    algorithm = ALGORITHMS[rules.algorithm]
    networks = (state.generator, state.amortiser)
    _, predicted_label = amortise(state.amortiser, image)
    if predicted_image is None:
        predicted_image = state.generator(label)
    clamping = Clamping(label, image, None if label_known is None else label_known[:, None])
    free = clamping.begin(rules.start, *networks, rules.key if key is None else key)
    relaxed, relaxation = infer(networks, clamping, free, rules)

    def terms_of(networks: tuple[Generator, Amortiser]):
        weights = rules.learning_weights()
        if algorithm.by_backpropagation:
            terms = output_terms(*networks, label, image, *weights, rules.label_loss)
        else:
            terms = energy_terms(*networks, *relaxed, *weights, rules.label_loss)
        forward, backward = (jnp.sum(direction) for direction in terms)
        return forward + backward, (forward, backward)

    (energy_learnt, (forward, backward)), gradients = eqx.filter_value_and_grad(
        terms_of, has_aux=True
    )(networks)
    energy_after = energy_learnt
    if rules.label_decay is not None:
        energy_after = inference_energy(networks, clamping, relaxation.free, rules)
    elif not algorithm.by_backpropagation and not algorithm.amortiser_infers:
        energy_after = forward
    amort_error = label - predicted_label
    amort_loss = 0.5 * jnp.mean(amort_error**2)
    if rules.label_loss != "squared":
        amort_loss = label_term(label, amort_error, rules.label_loss)

    metrics = StepMetrics(
        gen_loss=0.5 * jnp.mean((image - predicted_image) ** 2),
        amort_loss=amort_loss,
        energy_before=relaxation.energies[0] if rules.n_inference_steps else energy_after,
        energy_after=energy_after,
        generator_energy=forward,
        amortiser_energy=backward,
        inference_steps=jnp.asarray(relaxation.n_steps, image.dtype),
    )
    return _learn(state, gradients, rules), metrics


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
        key = jax.random.fold_in(jax.random.fold_in(rules.key, index[0]), index[-1])
        pixels = images[index]
        if rules.image_shape is not None and rules.shift_share is not None:
            shift_key = jax.random.fold_in(key, 1)
            pixels = shifted(pixels, rules.image_shape, rules.shift, rules.shift_share, shift_key)
        image = normalise(pixels, scale)
        one_hot = jnp.eye(n_classes, dtype=image.dtype)
        # Labels are one-hot, so there are no more different predictions than classes.
        predicted_image = state.generator(one_hot)[labels[index]]
        if rules.input_noise is not None:
            noise = jax.random.normal(jax.random.fold_in(key, 0), image.shape, image.dtype)
            image = image + rules.input_noise / scale.std * noise
        label = one_hot[labels[index]]
        known = None if rules.labelled is None else rules.labelled[index]
        return train_step(state, image, label, rules, predicted_image, key, known)

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


def _learn(state: TrainState, gradients, rules: Rules) -> TrainState:
    algorithm, optimiser = ALGORITHMS[rules.algorithm], rules.parameter_optimiser

    def step(network, gradient, optimiser_state, learns):
        if not learns:  # weight decay would change it too
            return network, optimiser_state
        weights, static = eqx.partition(network, eqx.is_array)
        weights, optimiser_state = optimiser.update(gradient, optimiser_state, weights)
        return eqx.combine(weights, static), optimiser_state

    generator, generator_state = step(
        state.generator,
        gradients[0],
        state.generator_optimiser_state,
        algorithm.generator_learns,
    )
    amortiser, amortiser_state = step(
        state.amortiser,
        gradients[1],
        state.amortiser_optimiser_state,
        algorithm.amortiser_learns,
    )
    return TrainState(generator, amortiser, generator_state, amortiser_state)
