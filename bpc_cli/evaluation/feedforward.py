"""What models make of a test set by feedforward passes alone."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, UInt8

from bpc_cli.core.batching import in_blocks
from bpc_cli.core.ensembles import over_ensemble, take
from bpc_cli.core.models import Model, generate_classes, predict_classes, reconstruct
from bpc_cli.data.pixels import to_unit_pixels
from bpc_cli.evaluation.network_tests import NetworkTest, Reconstruction

_BLOCK = 2_000  # images


def evaluate_ensemble(
    models: Model,
    images: UInt8[Array, "examples pixels"],
    labels: Integer[np.ndarray, " examples"],
    means: Float[np.ndarray, "classes pixels"],
    examples: Float[np.ndarray, "classes pixels"] | None = None,
) -> list[NetworkTest]:
    """Test several models, stacked along a leading axis: classify, generate, reconstruct.

    Args:
        models: the ensemble.
        images: all test images, flattened.
        labels: their classes; they are compared with predictions, and never an input.
        means: the test set's class means, as `metrics.class_means` computes them.
        examples: the test images of which models with latent units show what they make, as
            `metrics.first_examples` takes them; None: the class means.
    """
    shown = np.nan_to_num(means if examples is None else examples).astype(np.float32)
    used = jax.device_get(_use(models, images, jnp.asarray(shown)))
    n_models = len(jax.tree.leaves(used)[0])
    tests = []
    for predicted, generated, reconstructed in (take(used, number) for number in range(n_models)):
        reconstruction = None
        if reconstructed is not None:
            square_errors, made = reconstructed
            reconstruction = Reconstruction(square_errors, shown, made)
        tests.append(NetworkTest(predicted, labels, generated, means, reconstruction))
    return tests


@eqx.filter_jit
def _use(
    models: Model,
    images: UInt8[Array, "examples pixels"],
    examples: Float[Array, "classes pixels"],
) -> tuple[Any, Any, Any]:
    def use(model: Model) -> tuple[Any, Any, Any]:
        predicted = generated = reconstructed = None
        if model.n_classes:
            predicted, generated = predict_classes(model, images), generate_classes(model)
        if model.n_latent:
            reconstructed = _square_errors(model, images), reconstruct(model, examples)
        return predicted, generated, reconstructed

    return over_ensemble(use, models)


def _square_errors(
    model: Model, images: UInt8[Array, "examples pixels"]
) -> Float[Array, " examples"]:
    def of_block(pixels: Array) -> Float[Array, " block"]:
        errors = reconstruct(model, pixels) - to_unit_pixels(pixels)
        return jnp.mean(errors**2, axis=1)

    return in_blocks(of_block, [images], _BLOCK)
