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

from bpc_cli.core.clamping import Clamping, clamp_images
from bpc_cli.core.inference import Inference, initialise
from bpc_cli.core.learning import Batch, Learning, TrainState, train_step
from bpc_cli.core.models import Model
from bpc_cli.evaluation.parts import PART_SIZE, in_parts

_LOOPING = 2  # steps, the fewest that the compiler keeps in a loop


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


def flops_per_image(model: Model, inference: Inference) -> dict[str, float]:
    """Count the operations that classifying an image takes, as the compiler counts them.

    A loop's are those of one step times the number of steps, as the compiler counts each loop once.

    Returns:
        Operations by way: "feedforward", "relaxed" and "lowest_energy".
    """
    image = jnp.zeros(model.state_shapes[-1])
    label = jnp.zeros(model.state_shapes[0])
    unknown = jax.tree.map(lambda leaf: leaf[0], clamp_images(model, image[None]))
    known = Clamping(label, image)
    feedforward = count_flops(lambda image: model.feed_up(image)[0], image)
    steps = {
        name: _flops_of(model, inference, each)
        for name, each in {"relaxed": unknown, "lowest_energy": known}.items()
    }
    return {
        "feedforward": feedforward,
        "relaxed": feedforward + inference.n_steps * steps["relaxed"][0],
        "lowest_energy": model.n_classes
        * (feedforward + inference.n_steps * steps["lowest_energy"][0] + steps["lowest_energy"][1]),
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

    def count(n_steps: int) -> float:
        arguments = (state, images, dataclasses.replace(inference, n_steps=n_steps), learning)
        traced, static = eqx.partition(arguments, lambda leaf: hasattr(leaf, "dtype"))

        def step(traced: Any, labels: jax.Array) -> Any:
            state, images, inference, learning = eqx.combine(traced, static)
            model = state.model
            generated = model.generated_classes()[labels] if model.n_classes else None
            batch = Batch(model.one_hot(labels), images, None, generated)
            done = train_step(state, batch, inference, learning, jax.random.PRNGKey(0))
            return eqx.filter(done, eqx.is_array)

        return count_flops(step, traced, labels)

    without = count(0)
    if inference.n_steps == 0:
        return without
    return without + inference.n_steps * (count(_LOOPING) - without)


def count_flops(function: Callable[..., Any], *arguments: Any) -> float:
    """Count the operations of a function without loops, as the compiler counts them."""
    analysis = jax.jit(function).lower(*arguments).compile().cost_analysis()
    return float((analysis or {}).get("flops", 0.0))


def _flops_of(model: Model, inference: Inference, clamping: Clamping) -> tuple[float, float]:
    """Count the operations of a step of inference, and of the energy alone."""
    free = initialise(model, clamping, "zeros")

    def energy_of(free: Any) -> jax.Array:
        return inference.energy(model, clamping, free)

    return count_flops(jax.grad(energy_of), free), count_flops(energy_of, free)
