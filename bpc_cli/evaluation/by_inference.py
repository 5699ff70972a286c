"""What a model does on a test set by inference, and what that costs."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Integer, PRNGKeyArray, UInt8

from bpc_cli.core.inference import Inference
from bpc_cli.core.models import Model, predict_classes
from bpc_cli.evaluation.classification import classify_by_energy, classify_by_inference
from bpc_cli.evaluation.cost import flops_per_image, timed
from bpc_cli.evaluation.generation import generate_by_inference
from bpc_cli.evaluation.metrics import accuracy, generation_error
from bpc_cli.evaluation.results import Cost, InferenceResult


def evaluate_by_inference(
    model: Model,
    inference: Inference,
    key: PRNGKeyArray,
    images: UInt8[np.ndarray, "examples pixels"],
    labels: Integer[np.ndarray, " examples"],
    means: Float[np.ndarray, "classes pixels"],
) -> InferenceResult:
    """Test one model by inference: every metric of it, and what each way of classifying costs.

    Args:
        model: the model.
        inference: how activities are initialised and relaxed.
        key: fixes noise that they are initialised by.
        images: all test images.
        labels: their classes, which are never an input.
        means: the test set's class means.
    """
    pixels = jnp.asarray(images)
    (inferred, moved), relaxed_seconds = timed(classify_by_inference, model, pixels, inference, key)
    by_energy, energy_seconds = timed(classify_by_energy, model, pixels, inference, key)
    _, feedforward_seconds = timed(predict_classes, model, pixels)
    # Under cross-entropy a free label's energy has no minimum to relax to.
    label_relaxes = model.label_loss == "squared"
    values = {
        "relaxed_accuracy": accuracy(np.asarray(inferred), labels) if label_relaxes else None,
        "lowest_energy_accuracy": accuracy(np.asarray(by_energy), labels),
        "relaxed_generation_error": generation_error(
            np.asarray(generate_by_inference(model, inference)), means
        ),
        "activity_change": float(np.mean(moved)) if model.depth > 1 else None,
    }
    flops = flops_per_image(model, inference)
    seconds = {
        "feedforward": feedforward_seconds,
        "relaxed": relaxed_seconds,
        "lowest_energy": energy_seconds,
    }
    costs = {way: Cost(flops[way], 1e3 * spent / len(labels)) for way, spent in seconds.items()}
    return InferenceResult(values, costs)
