"""What inference does, step by step: energies, movement, gradients, and what comes of them."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from bpc_cli.core.batching import in_blocks
from bpc_cli.core.clamping import Clamping, Free, each_label_alone, image_alone, infer
from bpc_cli.core.energy import energy_terms
from bpc_cli.core.inference import relative_distance, square_norms
from bpc_cli.core.rules import Rules
from bpc_cli.data.pixels import PixelScale, normalise, to_unit_range
from bpc_cli.evaluation.by_inference import Networks, n_classes


class Trajectory(NamedTuple):
    """How each image's activities relax, before each inference step and after the last.

    Attributes:
        generator_terms: the energy's terms of the generator, z_0 to the image, unweighted.
        amortiser_terms: the same of the amortiser, the label to the last hidden layer.
        from_start: how far activities are from where they start, ‖z - z_start‖ / ‖z_start‖.
        from_end: how far they are from where they end, ‖z - z_end‖ / ‖z_end‖.
        gradient: the root mean square of the energy's gradient with respect to them.
    """

    generator_terms: Float[Array, "images steps depth"]
    amortiser_terms: Float[Array, "images steps depth"]
    from_start: Float[Array, "images steps"]
    from_end: Float[Array, "images steps"]
    gradient: Float[Array, "images steps"]


@eqx.filter_jit
def follow_inference(
    networks: Networks,
    images: UInt8[Array, "images image"],
    labels: Int[Array, " images"],
    scale: PixelScale,
    rules: Rules,
    batch_size: int,
    block_size: int = 250,
) -> Trajectory:
    """Follow inference as in training: image and label clamped.

    Args:
        networks: generator and amortiser.
        images: as uint8, worked on in blocks.
        labels: their class numbers.
        scale: how pixels are normalised.
        rules: algorithm, energy weights, activity optimiser, number of inference steps.
        batch_size: of a mean energy's gradient, at rate/batch_size per sample as in training.
        block_size: the images of a block.
    """
    one_hot = jnp.eye(n_classes(networks))

    def of_block(pixels: UInt8[Array, "block image"], labels: Int[Array, " block"]) -> Trajectory:
        clamping = Clamping(one_hot[labels], normalise(pixels, scale))
        start = clamping.begin(rules.start, *networks, rules.key)
        end, _ = infer(networks, clamping, start, rules, batch_size)

        def observe(free: Free, gradient: Free) -> Trajectory:
            def terms_of(label, activities, image):
                return energy_terms(
                    *networks,
                    *(label[None], [activity[None] for activity in activities], image[None]),
                    *(1.0, 1.0),
                    rules.label_loss,
                )

            forward, backward = jax.vmap(terms_of)(*clamping.complete(free))
            sizes = sum(activity.shape[1] for activity in free.activities)
            square = square_norms(gradient.activities) * len(labels) ** 2
            return Trajectory(
                forward,
                backward,
                relative_distance(free.activities, start.activities),
                relative_distance(free.activities, end.activities),
                jnp.sqrt(square / max(sizes, 1)),
            )

        _, relaxation = infer(networks, clamping, start, rules, batch_size, observe)
        return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1), relaxation.seen)

    return in_blocks(of_block, [images, labels], block_size)


@eqx.filter_jit
def follow_naming(
    networks: Networks,
    images: UInt8[Array, "images image"],
    labels: Int[Array, " images"],
    scale: PixelScale,
    rules: Rules,
    batch_size: int,
    block_size: int = 500,
) -> Bool[Array, "images steps"]:
    """Tell whether a free label names each image rightly before each step and after the last.

    The arguments are those of `follow_inference`.
    """

    def of_block(
        pixels: UInt8[Array, "block image"], labels: Int[Array, " block"]
    ) -> Bool[Array, "block steps"]:
        clamping = image_alone(normalise(pixels, scale), n_classes(networks))
        start = clamping.begin(rules.start, *networks, rules.key)

        def observe(free: Free, _: Free) -> Bool[Array, " block"]:
            return jnp.argmax(clamping.complete(free).label, axis=1) == labels

        _, relaxation = infer(networks, clamping, start, rules, batch_size, observe)
        return relaxation.seen.T

    return in_blocks(of_block, [images, labels], block_size)


@eqx.filter_jit
def follow_drawing(
    networks: Networks, scale: PixelScale, rules: Rules, batch_size: int
) -> Float[Array, "steps classes image"]:
    """Follow an image of each class that relaxes with the activities; black is 0, white is 1."""
    clamping = each_label_alone(networks[0])
    start = clamping.begin("generative", *networks)

    def observe(free: Free, _: Free) -> Float[Array, "classes image"]:
        return to_unit_range(clamping.complete(free).image, scale)

    _, relaxation = infer(networks, clamping, start, rules, batch_size, observe)
    return relaxation.seen
