"""Figures of merit, against NumPy and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix

from bpc_cli.core.models import make_networks
from bpc_cli.data.pixels import normalise, pixel_scale, to_unit_range
from bpc_cli.evaluation.classification import (
    accuracy,
    class_means,
    confusion_matrix,
    draw_classes,
    generation_error,
    per_class_accuracy,
    predict_classes,
)

SCALE = pixel_scale(0.1307, 0.3081)


def some_images(n):
    return np.random.default_rng(0).integers(0, 256, (n, 9), np.uint8)


@pytest.mark.parametrize("block_size", [1, 4, 10, 23, 100])
def test_every_image_is_classified_whatever_the_block_size(block_size):
    _, amortiser = make_networks(jax.random.PRNGKey(0), [4, 5, 9], "relu")
    images = some_images(23)
    expected = np.argmax(np.asarray(amortiser(normalise(jnp.asarray(images), SCALE))), axis=1)
    predicted = predict_classes(amortiser, jnp.asarray(images), SCALE, block_size)
    np.testing.assert_array_equal(predicted, expected)


def test_accuracy_counts_every_example_once():
    assert accuracy(np.array([0, 1, 2, 2]), np.array([0, 1, 2, 0])) == 75.0


def test_confusion_matrix_is_sklearns():
    rng = np.random.default_rng(0)
    predicted, actual = rng.integers(0, 5, 200), rng.integers(0, 5, 200)
    expected = sklearn_confusion_matrix(actual, predicted, labels=range(5))
    np.testing.assert_array_equal(confusion_matrix(predicted, actual, 5), expected)


def test_per_class_accuracy_has_none_for_an_empty_class():
    confusion = np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]])
    assert per_class_accuracy(confusion) == [75.0, 100.0, None]


def test_class_means_and_generation_error():
    images = np.array([[0, 255], [255, 255], [51, 0]], np.uint8)
    means = class_means(images, np.array([0, 0, 1]), 3)
    np.testing.assert_allclose(means[:2], [[0.5, 1.0], [0.2, 0.0]])
    assert np.isnan(means[2]).all()
    drawn = np.array([[0.5, 0.9], [0.2, 0.3], [9.0, 9.0]])
    assert generation_error(drawn, means) == pytest.approx(np.sqrt((0.1**2 + 0.3**2) / 4))


def test_drawn_classes_are_on_the_pixel_scale_and_not_clipped():
    generator, _ = make_networks(jax.random.PRNGKey(0), [4, 5, 9], "relu")
    expected = np.asarray(generator(jnp.eye(4))) * 0.3081 + 0.1307
    np.testing.assert_allclose(draw_classes(generator, SCALE), expected, rtol=1e-5)


def test_normalising_is_undone():
    pixels = jnp.arange(256, dtype=jnp.uint8)
    np.testing.assert_allclose(
        to_unit_range(normalise(pixels, SCALE), SCALE), np.arange(256) / 255, atol=1e-6
    )
