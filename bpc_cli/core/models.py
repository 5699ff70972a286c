"""The model: a generator and an amortiser, which predict the same states from two sides.

One convention for the order of layers holds everywhere in this package: **index 0 is next to
the label**. With states s = (label, z_0, …, z_{depth-2}, image),

- the generator's layer `i` predicts s_{i+1} from s_i (top-down, W in the paper's formulas),
- the amortiser's layer `i` predicts s_i from s_{i+1} (bottom-up, V), so a bottom-up pass applies
  the amortiser's layers in reverse.

The activation comes *before* each linear map, except at the label and at the image.
"""

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, PRNGKeyArray

from bpc_cli.core.batching import in_blocks
from bpc_cli.core.layers import Layer, Shape
from bpc_cli.data.pixels import PixelScale, denormalise, normalise, to_unit_pixels
from bpc_cli.options.names import LABEL_LOSSES

Layers = tuple[Layer, ...]
UNSCALED = PixelScale()


class Model(eqx.Module):
    """A bidirectional predictive coding network. Its methods are of one sample where not said.

    Attributes:
        generator: the layers that predict top-down.
        amortiser: the layers that predict bottom-up; both label side first.
        image_shape: height, width and channels of an image.
        pixel_scale: how pixels become network units.
        label_loss: the amortiser's error at the label, one of `names.LABEL_LOSSES`.

    Raises:
        ValueError: if the two directions' layers do not predict states of the same shapes.
    """

    generator: Layers
    amortiser: Layers
    image_shape: tuple[int, int, int] = eqx.field(static=True)
    pixel_scale: PixelScale = eqx.field(static=True, default=UNSCALED)
    label_loss: str = eqx.field(static=True, default="squared")

    def __check_init__(self):
        if self.label_loss not in LABEL_LOSSES:
            raise ValueError(
                f"unknown label_loss '{self.label_loss}'; known: {', '.join(LABEL_LOSSES)}"
            )
        shapes = self.state_shapes
        read = [layer.in_shape for layer in self.generator]
        bottom_up = [layer.out_shape for layer in self.amortiser] + [self.amortiser[-1].in_shape]
        chained = [layer.in_shape for layer in self.amortiser]
        if read != shapes[:-1] or bottom_up != shapes or chained != shapes[1:]:
            raise ValueError(
                f"generator and amortiser must predict each other's states: {shapes} and "
                f"{bottom_up}, label first"
            )

    @property
    def state_shapes(self) -> list[Shape]:
        """The shapes of all states, label first."""
        return [self.generator[0].in_shape, *(layer.out_shape for layer in self.generator)]

    @property
    def depth(self) -> int:
        """How many layers either direction has."""
        return len(self.generator)

    @property
    def n_classes(self) -> int:
        """How many classes are told apart."""
        return math.prod(self.state_shapes[0])

    def feed_down(self, label: Float[Array, " label"]) -> list[Float[Array, "..."]]:
        """Predict z_0, …, image by the generator's feedforward pass."""
        predicted = [label]
        for layer in self.generator:
            predicted.append(layer(predicted[-1]))
        return predicted[1:]

    def feed_up(self, image: Float[Array, "*image"]) -> list[Float[Array, "..."]]:
        """Predict label, z_0, … by the amortiser's feedforward pass."""
        predicted = [image]
        for layer in reversed(self.amortiser):
            predicted.append(layer(predicted[-1]))
        return predicted[:0:-1]

    def generated_classes(self) -> Float[Array, "classes *image"]:
        """Generate an image of each class by a feedforward pass, in network units."""
        one_hot = jnp.eye(self.n_classes, dtype=jnp.result_type(float))
        return jax.vmap(lambda label: self.feed_down(label)[-1])(one_hot)

    def to_states(self, images: Array) -> Float[Array, "images *image"]:
        """Turn many images, uint8 or of [0, 1] pixels, into states of the image layer."""
        pixels = to_unit_pixels(images) if images.dtype == jnp.uint8 else images
        return normalise(pixels, self.pixel_scale).reshape(len(images), *self.state_shapes[-1])

    def to_images(self, states: Float[Array, "images *image"]) -> Float[Array, "images pixels"]:
        """Turn many states of the image layer into flattened [0, 1] pixels, not clipped."""
        return denormalise(states, self.pixel_scale).reshape(len(states), -1)

    def classify(self, images: np.ndarray | Array) -> Integer[np.ndarray, " images"]:
        """Predict the class of each of many images by the amortiser's feedforward pass.

        Args:
            images: a row each, in any shape that has the pixels of `image_shape`: uint8, or
                numbers in [0, 1].

        Raises:
            ValueError: if an image does not have so many pixels.
        """
        images = np.asarray(images)
        n_pixels = math.prod(self.image_shape)
        if images.ndim < 2 or math.prod(images.shape[1:]) != n_pixels:
            raise ValueError(
                f"images of shape {images.shape} must be rows of {n_pixels} pixels, as of shape "
                f"(images, {', '.join(map(str, self.image_shape))})"
            )
        if not len(images):
            return np.zeros(0, np.int32)
        if images.dtype != np.uint8:
            images = images.astype(jnp.result_type(float))
        return np.asarray(predict_classes(self, jnp.asarray(images.reshape(len(images), -1))))

    def generate(
        self, classes: Sequence[int] | np.ndarray, *, clip: bool = True
    ) -> Float[np.ndarray, "images height width channels"]:
        """Generate an image of each class given, by the generator's feedforward pass.

        Args:
            classes: class numbers.
            clip: whether pixels are brought into [0, 1]; the generation error compares images that
                are not.

        Returns:
            Images of [0, 1] pixels, on which black is 0 and white is 1.

        Raises:
            ValueError: if a class is not one of the model's.
        """
        numbers = np.asarray(classes)
        if numbers.ndim != 1 or not np.isin(numbers, range(self.n_classes)).all():
            raise ValueError(f"classes must be a list of numbers from 0 to {self.n_classes - 1}")
        images = np.asarray(generate_classes(self))[numbers.astype(int)]
        images = images.reshape(-1, *self.image_shape)
        return np.clip(images, 0, 1) if clip else images


@eqx.filter_jit
def predict_classes(
    model: Model, images: Array, block_size: int = 2_000
) -> Integer[Array, " examples"]:
    """Predict the class of every image by the amortiser's pass alone; no label is an input.

    Args:
        model: the model.
        images: flattened, a row each: uint8 or [0, 1] pixels.
        block_size: how many are worked on at once, which bounds memory.
    """

    def of_block(pixels: Array) -> Integer[Array, " block"]:
        states = model.to_states(pixels)
        return jnp.argmax(jax.vmap(lambda image: model.feed_up(image)[0])(states), axis=1)

    return in_blocks(of_block, [images], block_size)


@eqx.filter_jit
def generate_classes(model: Model) -> Float[Array, "classes pixels"]:
    """Generate an image of each class; [0, 1] pixels, not clipped."""
    return model.to_images(model.generated_classes())


@runtime_checkable
class Architecture(Protocol):
    """What layers a model has."""

    def make_layers(
        self, key: PRNGKeyArray, n_classes: int, image_shape: tuple[int, int, int]
    ) -> tuple[Layers, Layers]:
        """Make the generator's and the amortiser's layers, label side first."""
        ...


def make_model(
    architecture: Architecture,
    key: PRNGKeyArray,
    n_classes: int,
    image_shape: tuple[int, int, int],
    pixel_scale: PixelScale = UNSCALED,
    label_loss: str = "squared",
) -> Model:
    """Make a model with fresh weights.

    Args:
        architecture: what layers it has, such as `Mlp()`.
        key: fixes the weights. With `Mlp()` and `jax.random.PRNGKey(0)` they are the published
            example's.
        n_classes: how many classes are told apart.
        image_shape: height, width and channels of an image.
        pixel_scale: how pixels become network units.
        label_loss: the amortiser's error at the label, one of `names.LABEL_LOSSES`.

    Raises:
        ValueError: if the architecture or `label_loss` does not exist.
    """
    generator, amortiser = architecture.make_layers(key, n_classes, image_shape)
    return Model(generator, amortiser, image_shape, pixel_scale, label_loss)
