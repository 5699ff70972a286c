"""The model: a generator and an amortiser, which predict the same states from two sides.

One convention for the order of layers holds everywhere in this package: **index 0 is next to
the label**. With states s = (label, z_0, …, z_{depth-2}, image),

- the generator's layer `i` predicts s_{i+1} from s_i (top-down, W in the paper's formulas),
- the amortiser's layer `i` predicts s_i from s_{i+1} (bottom-up, V), so a bottom-up pass applies
  the amortiser's layers in reverse.

The activation comes *before* each linear map, except at the label and at the image.

The top state s_0 is the label, or the label followed by *latent* units, or latent units alone: they
represent what the label does not say, and nothing clamps them.

In a *bimodal* model the top state is a hidden one, s_top: two chains share it, and end at the image
and at the label. The generator's layers predict away from the top, to both ends, and the
amortiser's towards it; so on the label's side of the top the generator's layer `i` predicts s_i
from s_{i+1}, and the amortiser's s_{i+1} from s_i.
"""

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer, PRNGKeyArray

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
        label_loss: the loss at the label, one of `names.LABEL_LOSSES`.
        n_latent: how many units of the label's state are latent, the last ones.
        top: which state is the top one: 0, or in a bimodal model a hidden one.

    Raises:
        ValueError: if the two directions' layers do not predict states of the same shapes, there
            are not so many units in the label's state, or not so many states.
    """

    generator: Layers
    amortiser: Layers
    image_shape: tuple[int, int, int] = eqx.field(static=True)
    pixel_scale: PixelScale = eqx.field(static=True, default=UNSCALED)
    label_loss: str = eqx.field(static=True, default="squared")
    n_latent: int = eqx.field(static=True, default=0)
    top: int = eqx.field(static=True, default=0)

    def __check_init__(self):
        if self.label_loss not in LABEL_LOSSES:
            raise ValueError(
                f"unknown label_loss '{self.label_loss}'; known: {', '.join(LABEL_LOSSES)}"
            )
        if not 0 <= self.top < self.depth:
            raise ValueError(f"state {self.top} of {self.depth} layers cannot be the top one")
        shapes, to_label = self.state_shapes, self.layers_to_label
        read = [layer.in_shape for layer in self.layers_to_image]
        bottom_up = [layer.out_shape for layer in to_label] + [to_label[-1].in_shape]
        chained = [layer.in_shape for layer in to_label]
        if read != shapes[:-1] or bottom_up != shapes or chained != shapes[1:]:
            raise ValueError(
                f"generator and amortiser must predict each other's states: {shapes} and "
                f"{bottom_up}, label first"
            )
        if not 0 <= self.n_latent <= math.prod(shapes[0]):
            raise ValueError(f"{self.n_latent} units of a state of {shapes[0]} cannot be latent")

    @property
    def layers_to_image(self) -> Layers:
        """The layers that predict s_{i+1} from s_i: the generator's, from the top on."""
        return self.amortiser[: self.top] + self.generator[self.top :]

    @property
    def layers_to_label(self) -> Layers:
        """The layers that predict s_i from s_{i+1}: the amortiser's, up to the top."""
        return self.generator[: self.top] + self.amortiser[self.top :]

    @property
    def state_shapes(self) -> list[Shape]:
        """The shapes of all states, label first."""
        layers = self.layers_to_image
        return [layers[0].in_shape, *(layer.out_shape for layer in layers)]

    @property
    def depth(self) -> int:
        """How many layers either direction has."""
        return len(self.generator)

    @property
    def n_classes(self) -> int:
        """How many classes are told apart; 0 where the top state has no label."""
        return math.prod(self.state_shapes[0]) - self.n_latent

    def one_hot(self, labels: Integer[Array, "*batch"]) -> Float[Array, "*batch classes"]:
        """Make one-hot labels of class numbers; of no entries where the top state has no label."""
        return jax.nn.one_hot(labels, self.n_classes, dtype=jnp.result_type(float))

    def clamp_label(self, label: Array) -> tuple[Array, Bool[np.ndarray, " top"] | None]:
        """Make top states of labels, and say which of their units are known; None: all.

        Latent units are at 0, the mean of their prior.
        """
        if self.n_latent == 0:
            return label, None
        widths = [(0, 0)] * (label.ndim - 1) + [(0, self.n_latent)]
        return jnp.pad(label, widths), np.arange(self.n_classes + self.n_latent) < self.n_classes

    def feed_down(self, label: Float[Array, " label"]) -> list[Float[Array, "..."]]:
        """Predict z_0, …, image by the feedforward pass to the image, the generator's."""
        predicted = [label]
        for layer in self.layers_to_image:
            predicted.append(layer(predicted[-1]))
        return predicted[1:]

    def feed_up(self, image: Float[Array, "*image"]) -> list[Float[Array, "..."]]:
        """Predict label, z_0, … by the feedforward pass to the label, the amortiser's."""
        predicted = [image]
        for layer in reversed(self.layers_to_label):
            predicted.append(layer(predicted[-1]))
        return predicted[:0:-1]

    def generated_classes(self) -> Float[Array, "classes *image"]:
        """Generate an image of each class by a feedforward pass, in network units."""
        tops, _ = self.clamp_label(self.one_hot(jnp.arange(self.n_classes)))
        return jax.vmap(lambda top: self.feed_down(top)[-1])(tops)

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
            ValueError: if an image does not have so many pixels, or the model has no label.
        """
        self._check_label("classifies")
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
            ValueError: if a class is not one of the model's, or it has no label.
        """
        self._check_label("generates classes")
        numbers = np.asarray(classes)
        if numbers.ndim != 1 or not np.isin(numbers, range(self.n_classes)).all():
            raise ValueError(f"classes must be a list of numbers from 0 to {self.n_classes - 1}")
        images = np.asarray(generate_classes(self))[numbers.astype(int)]
        images = images.reshape(-1, *self.image_shape)
        return np.clip(images, 0, 1) if clip else images

    def _check_label(self, does: str) -> None:
        if self.n_classes == 0:
            raise ValueError(f"a model without a label, as of mode=unsupervised, never {does}")


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
        predicted = jax.vmap(lambda image: model.feed_up(image)[0])(states)
        return jnp.argmax(predicted[:, : model.n_classes], axis=1)

    return in_blocks(of_block, [images], block_size)


def reconstruct(
    model: Model, images: Array, block_size: int = 2_000
) -> Float[Array, "examples pixels"]:
    """Reconstruct every image by feedforward passes: the amortiser's up, the generator's down.

    The arguments are those of `predict_classes`.

    Returns:
        [0, 1] pixels, not clipped.
    """

    def of_block(pixels: Array) -> Float[Array, "block pixels"]:
        tops = jax.vmap(lambda image: model.feed_up(image)[0])(model.to_states(pixels))
        return model.to_images(jax.vmap(lambda top: model.feed_down(top)[-1])(tops))

    return in_blocks(of_block, [images], block_size)


@eqx.filter_jit
def generate_classes(model: Model) -> Float[Array, "classes pixels"]:
    """Generate an image of each class; [0, 1] pixels, not clipped."""
    return model.to_images(model.generated_classes())


@runtime_checkable
class Architecture(Protocol):
    """What layers a model has."""

    @property
    def top(self) -> int:
        """Which state is the top one: 0 but in bimodal models."""
        ...

    def make_layers(
        self, key: PRNGKeyArray, n_top: int, image_shape: tuple[int, int, int]
    ) -> tuple[Layers, Layers]:
        """Make the generator's and the amortiser's layers, from `n_top` units down."""
        ...


def make_model(
    architecture: Architecture,
    key: PRNGKeyArray,
    n_classes: int,
    image_shape: tuple[int, int, int],
    pixel_scale: PixelScale = UNSCALED,
    label_loss: str = "squared",
    n_latent: int = 0,
) -> Model:
    """Make a model with fresh weights.

    Args:
        architecture: what layers it has, such as `Mlp()`.
        key: fixes the weights. With `Mlp()` and `jax.random.PRNGKey(0)` they are the published
            example's.
        n_classes: how many classes are told apart; 0: the top state has no label.
        image_shape: height, width and channels of an image.
        pixel_scale: how pixels become network units.
        label_loss: the loss at the label, one of `names.LABEL_LOSSES`.
        n_latent: how many latent units the top state has beside the label.

    Raises:
        ValueError: if the architecture or `label_loss` does not exist.
    """
    generator, amortiser = architecture.make_layers(key, n_classes + n_latent, image_shape)
    return Model(
        generator, amortiser, image_shape, pixel_scale, label_loss, n_latent, architecture.top
    )
