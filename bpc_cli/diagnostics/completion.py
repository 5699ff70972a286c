"""Completion: naming images of which a part is hidden, and drawing that part, by relaxation."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from bpc_cli.core.batching import in_blocks
from bpc_cli.core.clamping import Clamping, infer
from bpc_cli.core.rules import Rules
from bpc_cli.data.pixels import PixelScale, normalise, to_unit_range
from bpc_cli.evaluation.by_inference import Networks, n_classes

HIDDEN_PARTS = ("top", "left", "random")


class Completion(NamedTuple):
    """What networks make of images of which a part is hidden.

    Attributes:
        by_pass: the classes that a pass of the amortiser names, where hidden pixels are at 0 in
            network units.
        by_relaxation: those that a free label names, relaxed with the hidden pixels from there.
        images: the images with the hidden pixels as they relaxed; black is 0 and white is 1.
        drawn: the same with the hidden pixels as the generator draws the class that the pass names.
    """

    by_pass: Int[Array, " examples"]
    by_relaxation: Int[Array, " examples"]
    images: Float[Array, "examples image"]
    drawn: Float[Array, "examples image"]


def hidden_pixels(
    part: str, share: float, image_shape: tuple[int, int, int], n_images: int, seed: int = 0
) -> Bool[np.ndarray, "images image"]:
    """Choose which pixels of each image are hidden.

    Args:
        part: "top" (whole rows), "left" (whole columns), or "random" (other pixels in each image).
        share: of rows, columns or pixels.
        image_shape: height, width and channels; a pixel's channels are hidden together.
        n_images: how many images.
        seed: fixes which pixels are random.

    Raises:
        ValueError: if `part` is not one of these.
    """
    height, width, channels = image_shape
    hidden = np.zeros((n_images, height, width), bool)
    if part == "top":
        hidden[:, : round(share * height)] = True
    elif part == "left":
        hidden[:, :, : round(share * width)] = True
    elif part == "random":
        order = np.random.default_rng(seed).random((n_images, height * width)).argsort(axis=1)
        hidden = (order < round(share * height * width)).reshape(hidden.shape)
    else:
        raise ValueError(f"unknown part '{part}'; known: {', '.join(HIDDEN_PARTS)}")
    return np.repeat(hidden[..., None], channels, axis=3).reshape(n_images, -1)


@eqx.filter_jit
def complete(
    networks: Networks,
    images: UInt8[Array, "examples image"],
    hidden: Bool[Array, "examples image"],
    scale: PixelScale,
    rules: Rules,
    batch_size: int,
    block_size: int = 500,
) -> Completion:
    """Name images, and draw what of them is hidden; hidden pixels are never read.

    Args:
        networks: generator and amortiser.
        images: as uint8, worked on in blocks.
        hidden: which of their pixels are hidden.
        scale: how pixels are normalised.
        rules: algorithm, energy weights, activity optimiser, number of inference steps.
        batch_size: of a mean energy's gradient, at rate/batch_size per sample as in training.
        block_size: the images of a block.
    """
    generator, amortiser = networks

    def of_block(
        pixels: UInt8[Array, "block image"], hidden: Bool[Array, "block image"]
    ) -> Completion:
        image = jnp.where(hidden, 0.0, normalise(pixels, scale))
        named = amortiser(image)
        clamping = Clamping(
            jnp.zeros((len(image), n_classes(networks)), image.dtype),
            image,
            label_known=jnp.zeros((len(image), 1), bool),
            image_known=~hidden,
        )
        free = clamping.begin(rules.start, *networks, rules.key)
        states, _ = infer(networks, clamping, free, rules, batch_size)
        label = jnp.eye(named.shape[1], dtype=image.dtype)[jnp.argmax(named, axis=1)]
        drawn = jnp.where(hidden, generator(label), image)
        return Completion(
            jnp.argmax(named, axis=1),
            jnp.argmax(states.label, axis=1),
            to_unit_range(states.image, scale),
            to_unit_range(drawn, scale),
        )

    return in_blocks(of_block, [images, hidden], block_size)
