"""Pixels and network units."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8


class PixelScale(NamedTuple):
    """The mean and standard deviation that normalise pixels in [0, 1]."""

    mean: float = 0.0
    std: float = 1.0


def to_unit_pixels(pixels: UInt8[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Turn uint8 pixels into [0, 1] pixels, on which black is 0 and white is 1."""
    return pixels.astype(jnp.result_type(float)) / 255


def normalise(images: Float[Array, "*shape"], scale: PixelScale) -> Float[Array, "*shape"]:
    """Turn [0, 1] pixels into network units: (pixels - mean)/std."""
    return (images - scale.mean) / scale.std


def denormalise(images: Float[Array, "*shape"], scale: PixelScale) -> Float[Array, "*shape"]:
    """Turn network units back into [0, 1] pixels.

    Predictions are not clipped: a generator may overshoot the range.
    """
    return images * scale.std + scale.mean
