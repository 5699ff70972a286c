"""Figures of merit, against NumPy and scikit-learn."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix
from small_models import small_model

from bpc_cli.core.models import generate_classes, predict_classes
from bpc_cli.data.pixels import PixelScale
from bpc_cli.evaluation.metrics import (
    METRICS,
    accuracy,
    class_means,
    confusion_matrix,
    generation_error,
    measure_test,
    per_class_accuracy,
)
from bpc_cli.evaluation.network_tests import NetworkTest, Reconstruction

SCALE = PixelScale(0.1307, 0.3081)


@pytest.mark.parametrize("block_size", [1, 4, 10, 23, 100])
def test_every_image_is_classified_whatever_the_block_size(block_size):
    model = small_model(0, [4, 5, 9], "relu", SCALE)
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (23, 9), np.uint8))
    expected = [int(jnp.argmax(model.feed_up(state)[0])) for state in model.to_states(images)]
    assert predict_classes(model, images, block_size).tolist() == expected


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
    generated = np.array([[0.5, 0.9], [0.2, 0.3], [9.0, 9.0]])
    assert generation_error(generated, means) == pytest.approx(np.sqrt((0.1**2 + 0.3**2) / 4))


def test_generated_classes_are_on_the_pixel_scale_and_not_clipped():
    model = small_model(0, [4, 5, 9], "relu", SCALE)
    expected = [np.asarray(model.feed_down(label)[-1]) * 0.3081 + 0.1307 for label in jnp.eye(4)]
    np.testing.assert_allclose(generate_classes(model), expected, rtol=1e-5)


def test_a_tests_metrics_are_those_of_the_table():
    means = np.array([[0.0, 1.0], [0.5, 0.5]])
    test = NetworkTest(np.array([0, 1, 1]), np.array([0, 1, 0]), means + 0.1, means)
    measured = measure_test(test)
    assert measured["test_accuracy"] == pytest.approx(200 / 3)
    assert measured["generation_error"] == pytest.approx(0.1)
    reconstruction = Reconstruction(np.array([0.01, 0.03]), means, means)
    measured = measure_test(test._replace(reconstruction=reconstruction))
    assert measured["reconstruction_error"] == pytest.approx(np.sqrt(0.02))
    assert set(measured) == {name for name, metric in METRICS.items() if metric.measure}
    assert set(measure_test(test)) == set(measured) - {"reconstruction_error"}
