"""What it costs to classify or to train: the compiler's count of operations, and seconds."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, UInt8

from bpc_cli.core.clamping import Clamping, clamp_both, clamp_images
from bpc_cli.core.inference import Inference, Inferred, infer_each, initialise
from bpc_cli.core.learning import Batch, Learning, TrainState, train_step
from bpc_cli.core.models import Model
from bpc_cli.evaluation.parts import PART_SIZE, in_parts

_KEY = jax.random.PRNGKey(0)


def timed(function: Any, *arguments: Any) -> tuple[Any, float]:
    """Call a compiled function; return its result, and its seconds less those of compiling."""
    compiled = function.lower(*arguments).compile()
    began = time.perf_counter()
    result = jax.block_until_ready(compiled(*arguments))
    return result, time.perf_counter() - began


def timed_in_parts(
    function: Any,
    model: Model,
    images: UInt8[np.ndarray, "examples pixels"],
    inference: Inference,
    key: PRNGKeyArray,
    about: str,
) -> tuple[Any, float]:
    """Call a compiled function of images in parts; return its result and seconds, as `timed` does.

    Args:
        function: of the model, images, inference and key.
        model: the model.
        images: all images.
        inference: how activities are initialised and relaxed.
        key: fixes noise that they are initialised by.
        about: what is computed, beside the progress bar.
    """
    compiled = function.lower(model, jnp.asarray(images[:PART_SIZE]), inference, key).compile()
    began = time.perf_counter()
    result = in_parts(lambda part: compiled(model, part, inference, key), [images], about)
    return result, time.perf_counter() - began


def flops_per_image(model: Model, inference: Inference, n_images: int = 500) -> dict[str, float]:
    """Count the operations that classifying an image takes, as the compiler counts them.

    A loop's are those of one step times the number of steps, as the compiler counts each loop once.

    Args:
        model: the model.
        inference: how activities are initialised and relaxed.
        n_images: how many are classified at once.

    Returns:
        Operations by way: "feedforward", "relaxed" and "lowest_energy".
    """
    images = jnp.zeros((n_images, *model.state_shapes[-1]))
    labels = jnp.zeros((n_images, model.n_classes))
    relaxed = _flops_of_inference(
        model, inference, clamp_images(model, images), lambda inferred: inferred.states.label
    )
    lowest_energy = model.n_classes * _flops_of_inference(
        model,
        inference,
        clamp_both(model, labels, images),
        lambda inferred: inferred.relaxation.energies[:, -1],
    )
    return {
        "feedforward": count_flops(lambda image: model.feed_up(image)[0], images[0]),
        "relaxed": relaxed / n_images,
        "lowest_energy": lowest_energy / n_images,
    }


def flops_per_step(
    state: TrainState, inference: Inference, learning: Learning, batch_size: int
) -> float:
    """Count the operations of a training step without augmentation, as the compiler counts them.

    Those of inference are those of one of its steps times their number, as the compiler counts each
    loop once; with a tolerance, they are the most that there can be.

    Args:
        state: the training state, or its shapes.
        inference: how activities are initialised and relaxed.
        learning: how weights learn.
        batch_size: images per step.
    """
    model = state.model
    labels = jnp.zeros(batch_size, int)
    images = jax.ShapeDtypeStruct((batch_size, *model.state_shapes[-1]), jnp.result_type(float))

    def train(state: TrainState, images: Any, labels: Any, inference: Inference) -> Any:
        model = state.model
        generated = model.generated_classes()[labels] if model.n_classes else None
        batch = Batch(model.one_hot(labels), images, None, generated)
        return train_step(state, batch, inference, learning, _KEY)

    def clamp(model: Model, images: Any, labels: Any) -> Clamping:
        return clamp_both(model, model.one_hot(labels), images)

    clampings = eqx.filter_eval_shape(clamp, model, images, labels)
    return _with_all_steps(
        lambda inference: count_flops(train, state, images, labels, inference),
        model,
        inference,
        clampings,
    )


def count_flops(function: Callable[..., Any], *arguments: Any) -> float:
    """Count the operations of a function, as the compiler counts them: each loop's once.

    Args:
        function: a function.
        arguments: its arguments; what has a `dtype` is traced, if only its shape is given.
    """
    traced, static = eqx.partition(arguments, lambda leaf: hasattr(leaf, "dtype"))

    def of_arrays(traced: Any) -> Any:
        return eqx.filter(function(*eqx.combine(traced, static)), eqx.is_array)

    analysis = jax.jit(of_arrays).lower(traced).compile().cost_analysis()
    return float((analysis or {}).get("flops", 0.0))


def _flops_of_inference(
    model: Model,
    inference: Inference,
    clampings: Clamping,
    wanted: Callable[[Inferred], jax.Array],
) -> float:
    """Count the operations of what inference of a batch is wanted for."""

    def infer(model: Model, clampings: Clamping, inference: Inference) -> jax.Array:
        return wanted(infer_each(model, clampings, inference, _KEY, trace=False))

    return _with_all_steps(
        lambda inference: count_flops(infer, model, clampings, inference),
        model,
        inference,
        clampings,
    )


def _with_all_steps(
    count: Callable[[Inference], float], model: Model, inference: Inference, clampings: Clamping
) -> float:
    """Count all steps of inference, of which a count has two: the first, and those of the loop.

    What is done once for all steps is counted apart.
    """
    without = count(dataclasses.replace(inference, n_steps=0))
    if inference.n_steps == 0:
        return without

    def expand(model: Model, clampings: Clamping, initial: Any) -> Any:
        n = len(clampings.image)
        return jax.vmap(lambda each, own: inference.expand(model, each, own, n))(clampings, initial)

    def start(model: Model, clampings: Clamping) -> Any:
        return jax.vmap(lambda each: initialise(model, each, "zeros", None))(clampings)

    initial = eqx.filter_eval_shape(start, model, clampings)
    once = count_flops(expand, model, clampings, initial)
    per_step = (count(inference) - without - once) / min(inference.n_steps, 2)
    return without + once + inference.n_steps * per_step
