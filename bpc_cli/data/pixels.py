"""Pixels and network units: uint8 images in and out of the compiled step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, UInt8


class PixelScale(NamedTuple):
    """The mean and standard deviation that normalise pixels in [0, 1]."""

    mean: float | Float[Array, ""]
    std: float | Float[Array, ""]


def pixel_scale(mean: float, std: float) -> PixelScale:
    """Make a pixel scale whose numbers compiled functions take as arguments."""
    dtype = jnp.result_type(float)
    return PixelScale(jnp.asarray(mean, dtype), jnp.asarray(std, dtype))


def shifted(
    pixels: UInt8[Array, "batch image"],
    shape: tuple[int, int, int],
    most: int,
    share: float | Float[Array, ""],
    key: PRNGKeyArray,
) -> UInt8[Array, "batch image"]:
    """Shift images by up to `most` whole pixels in both directions; what comes in is black.

    Args:
        pixels: flattened images.
        shape: their height, width and channels.
        most: the most pixels.
        share: how likely an image is to be shifted at all.
        key: fixes the shifts, each as likely as any other.
    """
    height, width, channels = shape
    padded = jnp.pad(pixels.reshape(-1, *shape), ((0, 0), (most, most), (most, most), (0, 0)))
    corners = jax.random.randint(key, (len(pixels), 2), 0, 2 * most + 1)
    is_shifted = jax.random.uniform(jax.random.fold_in(key, 0), (len(pixels), 1)) < share
    corners = jnp.where(is_shifted, corners, most)

    def cut(image: UInt8[Array, "tall wide channels"], corner: Array) -> UInt8[Array, " image"]:
        return jax.lax.dynamic_slice(image, (*corner, 0), (height, width, channels)).ravel()

    return jax.vmap(cut)(padded, corners)


def normalise(pixels: UInt8[Array, "*shape"], scale: PixelScale) -> Float[Array, "*shape"]:
    """Turn uint8 pixels into network units: (pixels/255 - mean)/std."""
    return (pixels.astype(jnp.result_type(float)) / 255 - scale.mean) / scale.std


def to_unit_range(images: Float[Array, "*shape"], scale: PixelScale) -> Float[Array, "*shape"]:
    """Turn network units back into the pixel scale in which black is 0 and white is 1.

    Predictions are not clipped: a generator may overshoot the range.
    """
    return images * scale.std + scale.mean
