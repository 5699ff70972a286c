"""What a model does on a test set by inference, and what that costs."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, UInt8

from bpc_cli.core.inference import Inference
from bpc_cli.core.models import Model, predict_classes
from bpc_cli.evaluation.classification import classify_by_energy, classify_by_inference
from bpc_cli.evaluation.cost import flops_per_image, timed, timed_in_parts
from bpc_cli.evaluation.generation import generate_by_inference
from bpc_cli.evaluation.metrics import accuracy, generation_error
from bpc_cli.evaluation.network_tests import NetworkTest
from bpc_cli.evaluation.results import Cost, InferenceResult


def evaluate_by_inference(
    model: Model,
    inference: Inference,
    key: PRNGKeyArray,
    images: UInt8[np.ndarray, "examples pixels"],
    test: NetworkTest,
    lowest_energy: bool,
) -> InferenceResult:
    """Test one model by inference: every metric of it, and what each way of classifying costs.

    Args:
        model: the model.
        inference: how activities are initialised and relaxed.
        key: fixes noise that they are initialised by.
        images: all test images.
        test: the feedforward test on them; its labels are never an input.
        lowest_energy: whether to test energy-based classification, which infers once a class.
    """
    subject = (model, images, inference, key)
    (inferred, moved), seconds = timed_in_parts(
        classify_by_inference, *subject, "classifying by inference"
    )
    spent = {"feedforward": timed(predict_classes, model, jnp.asarray(images))[1]}
    spent["relaxed"] = seconds
    generated, moved_generating = generate_by_inference(model, inference)
    # Under cross-entropy a free label's energy has no minimum to relax to.
    label_relaxes = model.label_loss == "squared"
    hidden = model.depth > 1
    values = {"relaxed_accuracy": accuracy(inferred, test.labels) if label_relaxes else None}
    if lowest_energy:
        by_energy, spent["lowest_energy"] = timed_in_parts(
            classify_by_energy, *subject, "classifying by the lowest energy"
        )
        values["lowest_energy_accuracy"] = accuracy(by_energy, test.labels)
    values |= {
        "relaxed_generation_error": generation_error(np.asarray(generated), test.class_means),
        "activity_change": float(np.mean(moved)) if hidden else None,
        "generation_activity_change": float(np.mean(moved_generating)) if hidden else None,
    }
    flops = flops_per_image(model, inference)
    costs = {way: Cost(flops[way], 1e3 * each / len(images)) for way, each in spent.items()}
    return InferenceResult(values, costs)
