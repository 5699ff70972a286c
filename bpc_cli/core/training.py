"""Training: compiled chunks of steps, of one model or of an ensemble."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Integer, PRNGKeyArray, UInt8

from bpc_cli.core.ensembles import over_ensemble
from bpc_cli.core.inference import Inference
from bpc_cli.core.learning import (
    Batch,
    Learning,
    StepMetrics,
    TrainState,
    observed_train_step,
)
from bpc_cli.core.models import Model
from bpc_cli.core.vitals import Vitals, measure_vitals
from bpc_cli.data.augmentation import Augmentation, augment
from bpc_cli.data.pixels import to_unit_pixels


class Training(eqx.Module):
    """How a run trains. Numbers in it are traced, so that runs that differ in them share a program.

    Attributes:
        inference: how activities are initialised and relaxed.
        learning: how weights learn.
        augmentations: what happens to training images, in this order.
        key: fixes noise and augmentation, together with a step's examples.
    """

    inference: Inference
    learning: Learning
    augmentations: tuple[Augmentation, ...]
    key: PRNGKeyArray


class Examples(NamedTuple):
    """A training set on the device.

    Attributes:
        images: flattened, as uint8.
        labels: class numbers.
        label_known: whose labels are known; None: everyone's. In an ensemble, each member has its
            own.
    """

    images: UInt8[Array, "examples pixels"]
    labels: Integer[Array, " examples"]
    label_known: Bool[Array, " examples"] | None = None


class Chunk(NamedTuple):
    """What a compiled chunk of steps is given.

    Attributes:
        examples: the training set.
        indices: a row of examples for each step; in an ensemble, rows for each member.
        n_steps: how many of the rows are trained on, the first ones.
        training: how.
    """

    examples: Examples
    indices: Integer[Array, "steps batch"]
    n_steps: Integer[Array, ""]
    training: Training


class ChunkEnd(NamedTuple):
    """What is looked at after a chunk's last step alone.

    Attributes:
        weights_are_finite: whether all weights are finite.
        vitals: how large weights, gradients and activities are.
    """

    weights_are_finite: Bool[Array, "*members"]
    vitals: Vitals


@eqx.filter_jit(donate="all-except-first")
def train_chunk(chunk: Chunk, state: TrainState) -> tuple[TrainState, StepMetrics, ChunkEnd]:
    """Run one compiled chunk of training steps; `state` is donated, so it cannot be used again.

    How many of the rows of indices are trained on is an argument, so chunks of all lengths are one
    program, and a step's bits do not depend on where chunks are cut.

    Returns:
        The state after it, the metrics stacked over steps (0 where no step was taken), and what
        is looked at after the last step.
    """
    return _take_steps(chunk, state)


@eqx.filter_jit(donate="all-except-first")
def train_ensemble(chunk: Chunk, states: TrainState) -> tuple[TrainState, StepMetrics, ChunkEnd]:
    """Run one compiled chunk of several models' training steps at once, as `train_chunk` one's.

    Each member has its own state, rows of indices, labels that are known and training, stacked
    along a leading axis; images, labels and the number of steps are common to all.
    """

    def train_member(own: tuple[Any, ...]):
        label_known, indices, training, state = own
        examples = chunk.examples._replace(label_known=label_known)
        return _take_steps(Chunk(examples, indices, chunk.n_steps, training), state)

    own = (chunk.examples.label_known, chunk.indices, chunk.training, states)
    return over_ensemble(train_member, own)


def _take_steps(chunk: Chunk, state: TrainState) -> tuple[TrainState, StepMetrics, ChunkEnd]:
    training, indices = chunk.training, chunk.indices
    arrays, static = eqx.partition(state, eqx.is_array)

    def step(i: Array, carry: Any) -> Any:
        arrays, metrics, vitals = carry
        state = eqx.combine(arrays, static)
        index = indices[i]
        key = jax.random.fold_in(jax.random.fold_in(training.key, index[0]), index[-1])
        batch = _prepare(state.model, chunk.examples, index, training.augmentations, key)
        state, measured, observed = observed_train_step(
            state, batch, training.inference, training.learning, key
        )
        metrics = jax.tree.map(lambda column, value: column.at[i].set(value), metrics, measured)
        vitals = jax.lax.cond(  # a pass over all weights is not free: once a chunk
            i + 1 == chunk.n_steps,
            lambda: measure_vitals(state.model, observed.gradients, observed.activities),
            lambda: vitals,
        )
        return eqx.filter(state, eqx.is_array), metrics, vitals

    empty = jnp.zeros(len(indices), jnp.result_type(float))
    metrics = StepMetrics(**dict.fromkeys(StepMetrics.__annotations__, empty))
    by_layer = jnp.zeros(state.model.depth, jnp.result_type(float))
    vitals = Vitals(*[by_layer] * 4, activities=by_layer[1:])
    carry = arrays, metrics, vitals
    arrays, metrics, vitals = jax.lax.fori_loop(0, chunk.n_steps, step, carry)
    weights = jax.tree.leaves(arrays.model)
    finite = jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in weights]).all()
    return eqx.combine(arrays, static), metrics, ChunkEnd(finite, vitals)


def _prepare(
    model: Model,
    examples: Examples,
    index: Integer[Array, " batch"],
    augmentations: tuple[Augmentation, ...],
    key: PRNGKeyArray,
) -> Batch:
    """Pick, augment and normalise the examples of a step."""
    pixels, labels = examples.images[index], examples.labels[index]
    if augmentations:
        images = to_unit_pixels(pixels).reshape(-1, *model.image_shape)
        pixels = augment(images, augmentations, key)
    return Batch(
        model.one_hot(labels),
        model.to_states(pixels),
        None if examples.label_known is None else examples.label_known[index],
        # There are no more different labels than classes.
        model.generated_classes()[labels] if model.n_classes else None,
    )
