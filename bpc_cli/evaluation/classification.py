"""Accuracy, per-class figures and generation error: pure functions of arrays."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from bpc_cli.core.batching import in_blocks
from bpc_cli.core.ensembles import over_replicas, stack
from bpc_cli.core.models import Amortiser, Generator
from bpc_cli.data.pixels import PixelScale, normalise, to_unit_range


@eqx.filter_jit
def predict_classes(
    amortiser: Amortiser,
    images: UInt8[Array, "examples image"],
    scale: PixelScale,
    block_size: int = 2_000,
) -> Int[Array, " examples"]:
    """Name every image by the amortiser's bottom-up pass alone; no label is an input.

    Memory is bounded: images are read in blocks of `block_size`.
    """
    return in_blocks(
        lambda pixels: jnp.argmax(amortiser(normalise(pixels, scale)), axis=1), [images], block_size
    )


@eqx.filter_jit
def draw_classes(generator: Generator, scale: PixelScale) -> Float[Array, "classes image"]:
    """Draw one image per class from its one-hot label; black is 0 and white is 1, not clipped."""
    n_classes = generator.layers[0].in_features
    labels = jnp.eye(n_classes, dtype=generator.layers[0].weight.dtype)
    return to_unit_range(generator(labels), scale)


class NetworkTest(NamedTuple):
    """What two networks do on a test set, each by one pass.

    Attributes:
        predicted: the class that the amortiser names for each image.
        accuracy: percentage of images named rightly.
        drawn: the generator's image of each class; black is 0 and white is 1, not clipped.
        class_means: the test set's mean image of each class, in [0, 1] pixels.
        generation_error: RMSE of `drawn` against `class_means`.
    """

    predicted: Int[np.ndarray, " examples"]
    accuracy: float
    drawn: Float[np.ndarray, "classes image"]
    class_means: Float[np.ndarray, "classes image"]
    generation_error: float


def evaluate_networks(
    generator: Generator,
    amortiser: Amortiser,
    images: UInt8[Array, "examples image"],
    labels: Int[np.ndarray, " examples"],
    means: Float[np.ndarray, "classes image"],
    scale: PixelScale,
) -> NetworkTest:
    """Test both networks: classify every image, and draw every class.

    Args:
        generator, amortiser: the networks.
        images: all test images as uint8.
        labels: their class numbers; they are compared with predictions, and never an input.
        means: the test set's class means, as `class_means` computes them.
        scale: how pixels are normalised.
    """
    (test,) = evaluate_replicas(
        stack([generator]), stack([amortiser]), images, labels, means, scale
    )
    return test


def evaluate_replicas(
    generators: Generator,
    amortisers: Amortiser,
    images: UInt8[Array, "examples image"],
    labels: Int[np.ndarray, " examples"],
    means: Float[np.ndarray, "classes image"],
    scale: PixelScale,
) -> list[NetworkTest]:
    """Test several networks, stacked along a leading axis, as `evaluate_networks` tests one."""
    predicted, drawn = jax.device_get(_use_replicas(generators, amortisers, images, scale))
    return [
        NetworkTest(named, accuracy(named, labels), images, means, generation_error(images, means))
        for named, images in zip(predicted, drawn, strict=True)
    ]


@eqx.filter_jit
def _use_replicas(
    generators: Generator,
    amortisers: Amortiser,
    images: UInt8[Array, "examples image"],
    scale: PixelScale,
) -> tuple[Int[Array, "replicas examples"], Float[Array, "replicas classes image"]]:
    predicted = over_replicas(lambda network: predict_classes(network, images, scale), amortisers)
    return predicted, over_replicas(lambda network: draw_classes(network, scale), generators)


def accuracy(
    predicted: Int[np.ndarray, " examples"], actual: Int[np.ndarray, " examples"]
) -> float:
    """Compute the percentage of all examples whose class is predicted."""
    return 100.0 * int(np.sum(np.asarray(predicted) == np.asarray(actual))) / len(actual)


def confusion_matrix(
    predicted: Int[np.ndarray, " examples"], actual: Int[np.ndarray, " examples"], n_classes: int
) -> Int[np.ndarray, "classes classes"]:
    """Count examples by actual class (rows) and predicted class (columns)."""
    pairs = np.asarray(actual, np.int64) * n_classes + np.asarray(predicted, np.int64)
    return np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)


def per_class_accuracy(
    confusion: Int[np.ndarray, "classes classes"],
) -> list[float | None]:
    """Compute each class's accuracy in percent; None for a class without examples."""
    counts = confusion.sum(axis=1)
    return [
        100.0 * int(confusion[i, i]) / int(count) if count else None
        for i, count in enumerate(counts)
    ]


def class_means(
    images: UInt8[np.ndarray, "examples image"],
    labels: Int[np.ndarray, " examples"],
    n_classes: int,
) -> Float[np.ndarray, "classes image"]:
    """Average each class's images; pixels in [0, 1], NaN for a class without examples."""
    means = np.full((n_classes, images.shape[1]), np.nan)
    for label in range(n_classes):
        members = images[labels == label]
        if len(members):
            means[label] = members.mean(axis=0, dtype=np.float64) / 255
    return means


def generation_error(
    drawn: Float[np.ndarray, "classes image"], means: Float[np.ndarray, "classes image"]
) -> float:
    """Compute the RMSE of drawn images against class means, over all pixels of classes present.

    Both are on the pixel scale in which black is 0 and white is 1; drawn images are not clipped.
    """
    present = ~np.isnan(means).any(axis=1)
    difference = np.asarray(drawn, np.float64)[present] - means[present]
    return float(np.sqrt(np.mean(difference**2)))
