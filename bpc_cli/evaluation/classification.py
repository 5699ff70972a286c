"""Classification by inference: by a label that is free, and by the energy of each label."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, PRNGKeyArray, UInt8

from bpc_cli.core.batching import in_blocks
from bpc_cli.core.clamping import clamp_both, clamp_images
from bpc_cli.core.inference import Inference, infer_each, relative_distance
from bpc_cli.core.models import Model


@eqx.filter_jit
def classify_by_inference(
    model: Model,
    images: UInt8[Array, "examples pixels"],
    inference: Inference,
    key: PRNGKeyArray | None = None,
    block_size: int = 500,
) -> tuple[Integer[Array, " examples"], Float[Array, " examples"]]:
    """Classify images by the largest entry of the label inferred with the activities.

    Args:
        model: the model.
        images: flattened, worked on in blocks.
        inference: how activities are initialised and relaxed.
        key: fixes noise that they are initialised by.
        block_size: the images of a block.

    Returns:
        The classes, and how far the activities moved: ‖z - z_initial‖ / ‖z_initial‖, 0 where they
        were initialised at 0.
    """

    def of_block(pixels: Array) -> tuple[Array, Array]:
        clampings = clamp_images(model, model.to_states(pixels))
        inferred = infer_each(model, clampings, inference, key, trace=False)
        moved = jax.vmap(relative_distance)(inferred.states.activities, inferred.initial.activities)
        return jnp.argmax(inferred.states.label[:, : model.n_classes], axis=1), moved

    return in_blocks(of_block, [images], block_size)


@eqx.filter_jit
def classify_by_energy(
    model: Model,
    images: UInt8[Array, "examples pixels"],
    inference: Inference,
    key: PRNGKeyArray | None = None,
    block_size: int = 500,
) -> Integer[Array, " examples"]:
    """Classify images by the class whose clamped label leaves the lowest energy after inference.

    The arguments are those of `classify_by_inference`.
    """
    one_hot = model.one_hot(jnp.arange(model.n_classes))

    def of_block(pixels: Array) -> Array:
        states = model.to_states(pixels)

        def energies_of(label: Float[Array, " label"]) -> Float[Array, " block"]:
            labels = jnp.broadcast_to(label, (len(states), len(label)))
            clampings = clamp_both(model, labels, states)
            inferred = infer_each(model, clampings, inference, key, trace=False)
            return inferred.relaxation.energies[:, -1]

        return jnp.argmin(jax.lax.map(energies_of, one_hot), axis=0)

    return in_blocks(of_block, [images], block_size)
