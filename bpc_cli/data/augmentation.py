"""Augmentation of training images, anew at every step; a new one is a class and a row here."""

import abc
import math
from collections.abc import Callable, Sequence
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

_MOST_SHIFT = 100


class Augmentation(eqx.Module):
    """Changes a batch of images at random.

    Attributes:
        stream: which of a step's random numbers it uses; each augmentation has its own.
    """

    stream: ClassVar[int]

    @abc.abstractmethod
    def __call__(
        self, images: Float[Array, "batch height width channels"], key: PRNGKeyArray
    ) -> Float[Array, "batch height width channels"]:
        """Augment images of [0, 1] pixels."""


class Noise(Augmentation):
    """Adds normal noise to each pixel.

    Attributes:
        std: its standard deviation, in [0, 1] pixels.
    """

    std: Float[Array, ""]
    stream: ClassVar[int] = 0

    def __init__(self, std: int | float):
        if not 0 <= std < math.inf:
            raise ValueError("at least 0, and finite")
        self.std = jnp.asarray(std, jnp.result_type(float))

    def __call__(
        self, images: Float[Array, "batch height width channels"], key: PRNGKeyArray
    ) -> Float[Array, "batch height width channels"]:
        return images + self.std * jax.random.normal(key, images.shape, images.dtype)


class Shift(Augmentation):
    """Shifts images by whole pixels, each shift as likely as any other; what comes in is black.

    Attributes:
        most: the most pixels.
        fraction: how likely an image is to be shifted at all.
    """

    most: int = eqx.field(static=True)
    fraction: Float[Array, ""]
    stream: ClassVar[int] = 1
    padding: ClassVar[str] = "constant"

    def __init__(self, most: int | float, fraction: int | float = 1.0):
        if most not in range(_MOST_SHIFT + 1):
            raise ValueError(f"a whole number of pixels from 0 to {_MOST_SHIFT}")
        self.most = int(most)
        self.fraction = jnp.asarray(fraction, jnp.result_type(float))

    def __call__(
        self, images: Float[Array, "batch height width channels"], key: PRNGKeyArray
    ) -> Float[Array, "batch height width channels"]:
        most = self.most
        by = ((0, 0), (most, most), (most, most), (0, 0))
        padded = jnp.pad(images, by, mode=self.padding)
        corners = jax.random.randint(key, (len(images), 2), 0, 2 * most + 1)
        shifts = jax.random.uniform(jax.random.fold_in(key, 0), (len(images), 1)) < self.fraction
        corners = jnp.where(shifts, corners, most)

        def cut(image: Array, corner: Array) -> Array:
            return jax.lax.dynamic_slice(image, (*corner, 0), images.shape[1:])

        return jax.vmap(cut)(padded, corners)


class Crop(Shift):
    """Pads images with their reflection, and cuts them at random places to what they were.

    That is a shift with another padding; black would leave a frame around what a generator that
    learns from these images generates. It has random numbers of its own, so that both can be asked
    for.
    """

    stream: ClassVar[int] = 2
    padding: ClassVar[str] = "reflect"

    def __init__(self, most: int | float):
        super().__init__(most)


class Flip(Augmentation):
    """Mirrors images from left to right.

    Attributes:
        probability: how likely an image is to be mirrored.
    """

    probability: Float[Array, ""]
    stream: ClassVar[int] = 3

    def __init__(self, probability: int | float):
        if not 0 <= probability <= 1:
            raise ValueError("a probability from 0 to 1")
        self.probability = jnp.asarray(probability, jnp.result_type(float))

    def __call__(
        self, images: Float[Array, "batch height width channels"], key: PRNGKeyArray
    ) -> Float[Array, "batch height width channels"]:
        flips = jax.random.uniform(key, (len(images), 1, 1, 1)) < self.probability
        return jnp.where(flips, images[:, :, ::-1], images)


# What `data.augmentation={NAME: NUMBER}` makes of a number; a ValueError says what it must be.
AUGMENTATIONS: dict[str, Callable[[int | float], Augmentation]] = {
    "noise": Noise,
    "shift": Shift,
    "crop": Crop,
    "flip": Flip,
}


def augment(
    images: Float[Array, "batch height width channels"],
    augmentations: Sequence[Augmentation],
    key: PRNGKeyArray,
) -> Float[Array, "batch height width channels"]:
    """Apply augmentations one after another to images of [0, 1] pixels."""
    for augmentation in augmentations:
        images = augmentation(images, jax.random.fold_in(key, augmentation.stream))
    return images
