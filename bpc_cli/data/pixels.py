"""Pixels and network units."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

PerChannel = float | tuple[float, ...]


class PixelScale(NamedTuple):
    """The mean and standard deviation that normalise pixels in [0, 1].

    Each is one number, or a tuple with one for each channel.
    """

    mean: PerChannel = 0.0
    std: PerChannel = 1.0


def to_unit_pixels(pixels: UInt8[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Turn uint8 pixels into [0, 1] pixels, on which black is 0 and white is 1."""
    return pixels.astype(jnp.result_type(float)) / 255


def normalise(
    images: Float[Array, "*shape last"], scale: PixelScale
) -> Float[Array, "*shape last"]:
    """Turn [0, 1] pixels into network units: (pixels - mean)/std.

    The last axis is an image's channels, or all of its pixels with channels varying fastest.
    """
    mean, std = (_per_pixel(each, images) for each in scale)
    return (images - mean) / std


def denormalise(
    images: Float[Array, "*shape last"], scale: PixelScale
) -> Float[Array, "*shape last"]:
    """Turn network units back into [0, 1] pixels; the last axis is as in `normalise`.

    Predictions are not clipped: a generator may overshoot the range.
    """
    mean, std = (_per_pixel(each, images) for each in scale)
    return images * std + mean


def _per_pixel(
    numbers: PerChannel, images: Float[Array, "*shape last"]
) -> float | Float[Array, " last"]:
    if not isinstance(numbers, tuple):
        return numbers
    return jnp.tile(jnp.asarray(numbers, images.dtype), images.shape[-1] // len(numbers))
