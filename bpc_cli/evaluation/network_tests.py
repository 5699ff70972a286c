"""What models make of a test set by feedforward passes, before anything is measured of it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer, UInt8


class Reconstruction(NamedTuple):
    """What becomes of test images on the way to the top state and back, in [0, 1] pixels.

    Attributes:
        square_errors: each image's mean square error.
        examples: the first image of each class; black for a class without images.
        made: what becomes of these.
    """

    square_errors: Float[np.ndarray, " examples"]
    examples: Float[np.ndarray, "classes image"]
    made: Float[np.ndarray, "classes image"]

    @property
    def error(self) -> float:
        """The RMSE over all pixels of all images."""
        return float(np.sqrt(np.mean(np.asarray(self.square_errors, np.float64))))


class NetworkTest(NamedTuple):
    """What a model makes of a test set, each by feedforward passes.

    Attributes:
        predicted: the class that the amortiser predicts for each image; None without a label.
        labels: the images' own classes.
        generated: the generator's image of each class; black is 0 and white is 1, not clipped. None
            without a label.
        class_means: the test set's mean image of each class, in [0, 1] pixels; NaN for a class
            without images.
        reconstruction: what becomes of images on the way to the top state and back; None without
            latent units.
    """

    predicted: Integer[np.ndarray, " examples"] | None
    labels: Integer[np.ndarray, " examples"]
    generated: Float[np.ndarray, "classes image"] | None
    class_means: Float[np.ndarray, "classes image"]
    reconstruction: Reconstruction | None = None


def rows_of_tests(
    tests: Sequence[NetworkTest], seeds: Sequence[int]
) -> tuple[list[tuple[str, np.ndarray]], tuple[str, np.ndarray]]:
    """Choose what a sample grid shows of each seed's test, and the row to compare it with.

    That is a generated image of each class beside its mean, or, where the model has no label, what
    it makes of a test image of each class.
    """
    headings = [f"seed {seed}" for seed in seeds]
    first = tests[0].reconstruction
    if tests[0].generated is None and first is not None:
        headings = headings if len(seeds) > 1 else ["reconstructed"]
        made = [test.reconstruction.made for test in tests if test.reconstruction is not None]
        return list(zip(headings, made, strict=True)), ("test image", first.examples)
    headings = headings if len(seeds) > 1 else ["generated"]
    generated = [test.generated for test in tests if test.generated is not None]
    return list(zip(headings, generated, strict=True)), ("test mean", tests[0].class_means)


def first_examples(
    images: UInt8[np.ndarray, "examples image"],
    labels: Integer[np.ndarray, " examples"],
    n_classes: int,
) -> Float[np.ndarray, "classes image"]:
    """Take each class's first image; pixels in [0, 1], NaN for a class without examples."""
    first = np.full((n_classes, images.shape[1]), np.nan)
    for label in range(n_classes):
        for image in images[labels == label][:1]:
            first[label] = image / 255
    return first
