"""What models make of a test set by feedforward passes alone."""

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, Integer, UInt8

from bpc_cli.core.ensembles import over_ensemble
from bpc_cli.core.models import Model, generate_classes, predict_classes
from bpc_cli.evaluation.metrics import NetworkTest


def evaluate_ensemble(
    models: Model,
    images: UInt8[Array, "examples pixels"],
    labels: Integer[np.ndarray, " examples"],
    means: Float[np.ndarray, "classes pixels"],
) -> list[NetworkTest]:
    """Test several models, stacked along a leading axis: classify images, generate classes.

    Args:
        models: the ensemble.
        images: all test images, flattened.
        labels: their classes; they are compared with predictions, and never an input.
        means: the test set's class means, as `metrics.class_means` computes them.
    """
    predicted, generated = jax.device_get(_use(models, images))
    return [
        NetworkTest(classes, labels, pictures, means)
        for classes, pictures in zip(predicted, generated, strict=True)
    ]


@eqx.filter_jit
def _use(
    models: Model, images: UInt8[Array, "examples pixels"]
) -> tuple[Integer[Array, "members examples"], Float[Array, "members classes pixels"]]:
    return over_ensemble(
        lambda model: (predict_classes(model, images), generate_classes(model)), models
    )
