"""What a top state with latent units represents: how much of an image, and of its class."""

import warnings
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, PRNGKeyArray, UInt8

from bpc_cli.core.batching import in_blocks
from bpc_cli.core.clamping import clamp_images
from bpc_cli.core.inference import Inference, infer_each, relative_distance
from bpc_cli.core.models import Model
from bpc_cli.data.datasets import Dataset
from bpc_cli.data.pixels import to_unit_pixels
from bpc_cli.evaluation.parts import in_parts

N_DECODED = 5_000  # training images that linear decoding learns from, the first ones


class Represented(NamedTuple):
    """What images are represented by, a row for each.

    Attributes:
        feedforward: the top state that the amortiser predicts.
        relaxed: the top state inferred with the activities, the image alone clamped.
        reconstructed: what the generator's feedforward pass makes of the relaxed one; [0, 1]
            pixels, not clipped.
        square_errors: its mean square error over pixels.
        moved: how far activities moved by inference, as in `classification`.
    """

    feedforward: Float[Array, "images top"]
    relaxed: Float[Array, "images top"]
    reconstructed: Float[Array, "images pixels"]
    square_errors: Float[Array, " images"]
    moved: Float[Array, " images"]


@eqx.filter_jit
def represent(
    model: Model,
    images: UInt8[Array, "images pixels"],
    inference: Inference,
    key: PRNGKeyArray | None = None,
    block_size: int = 500,
) -> Represented:
    """Represent images by the top state. The arguments are those of `classify_by_inference`."""

    def of_block(pixels: Array) -> Represented:
        states = model.to_states(pixels)
        predicted = jax.vmap(lambda image: model.feed_up(image)[0])(states)
        inferred = infer_each(model, clamp_images(model, states), inference, key, trace=False)
        tops = inferred.states.label
        made = model.to_images(jax.vmap(lambda top: model.feed_down(top)[-1])(tops))
        errors = jnp.mean((made - to_unit_pixels(pixels)) ** 2, axis=1)
        moved = jax.vmap(relative_distance)(inferred.states.activities, inferred.initial.activities)
        return Represented(predicted, tops, made, errors, moved)

    return in_blocks(of_block, [images], block_size)


def evaluate_representation(
    model: Model, inference: Inference, key: PRNGKeyArray, dataset: Dataset
) -> tuple[dict[str, float], dict[str, float]]:
    """Measure what a model's top state represents of a data set's images.

    A linear classifier learns to tell the classes of training images by the top state, and is
    tested on that of the test images: linear decoding.

    Args:
        model: the model.
        inference: how activities are initialised and relaxed; without steps, there are no tests by
            inference.
        key: fixes noise that they are initialised by.
        dataset: the data set; its labels are the decoder's alone.

    Returns:
        The metrics feedforward and by inference, by name.
    """

    def measure(part: Array) -> tuple[Array, ...]:
        each = represent(model, part, inference, key)
        return each.feedforward, each.relaxed, each.square_errors, each.moved

    train_labels = dataset.train_labels[:N_DECODED]
    train = in_parts(measure, [dataset.train_images[:N_DECODED]], "representing training images")
    test = in_parts(measure, [dataset.test_images], "representing test images")
    decoded = [probe(train[i], train_labels, test[i], dataset.test_labels) for i in range(2)]
    by_inference = {
        "relaxed_reconstruction_error": float(np.sqrt(np.mean(test[2], dtype=np.float64))),
        "relaxed_linear_decoding": decoded[1],
        "activity_change": float(np.mean(test[3])),
    }
    return {"linear_decoding": decoded[0]}, by_inference if inference.n_steps else {}


def probe(
    train: Float[np.ndarray, "train units"],
    train_labels: Integer[np.ndarray, " train"],
    test: Float[np.ndarray, "test units"],
    test_labels: Integer[np.ndarray, " test"],
) -> float:
    """Compute a linear classifier's accuracy in percent on a layer's activities.

    It is scikit-learn's logistic regression (L2, C = 1) on activities of unit variance.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # as on classes that it separates
        classifier.fit(np.asarray(train), np.asarray(train_labels))
    return 100.0 * float(classifier.score(np.asarray(test), np.asarray(test_labels)))
