"""Accuracy by inference and generation error by inference, against inference steps."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer, PRNGKeyArray, UInt8
from matplotlib.figure import Figure

from bpc_cli.core.batching import in_blocks
from bpc_cli.core.clamping import Clamping, States, clamp_classes, clamp_images
from bpc_cli.core.inference import Inference, infer, infer_each
from bpc_cli.core.models import Model
from bpc_cli.diagnostics import Diagnosis, Subject
from bpc_cli.evaluation.metrics import METRICS, class_means, generation_error
from bpc_cli.evaluation.parts import in_parts
from bpc_cli.evaluation.results import count_steps
from bpc_cli.plots.axes import label_steps, marker_of, write_ticks_in_full

NEEDS = ("inference", "a label")
RELAXES = ("image", "label")
# Of each panel, what is clamped, and what the axis spans at least: less than that is no change.
_PANELS = {"relaxed_accuracy": ("image", 1.0), "relaxed_generation_error": ("label", 0.01)}


@eqx.filter_jit
def follow_classification(
    model: Model,
    images: UInt8[Array, "images pixels"],
    labels: Integer[Array, " images"],
    inference: Inference,
    key: PRNGKeyArray | None = None,
    block_size: int = 500,
) -> Bool[Array, "images times"]:
    """Tell whether the inferred label classifies each image rightly, before each step and after.

    The arguments are those of `inference.follow_inference`.
    """
    key = jax.random.PRNGKey(0) if key is None else key

    def of_image(clamping: Clamping, label: Array, own: PRNGKeyArray) -> Bool[Array, " times"]:
        def observe(free: States, _: States) -> Bool[Array, ""]:
            return jnp.argmax(free.label[: model.n_classes]) == label

        return infer(model, clamping, inference, own, observe).relaxation.observed

    def of_block(pixels: Array, labels: Array) -> Array:
        clampings = clamp_images(model, model.to_states(pixels))
        return jax.vmap(of_image)(clampings, labels, jax.random.split(key, len(labels)))

    return in_blocks(of_block, [images, labels], block_size)


@eqx.filter_jit
def follow_generation(model: Model, inference: Inference) -> Float[Array, "times classes pixels"]:
    """Follow an image of each class that relaxes with the activities; [0, 1] pixels."""
    inference = dataclasses.replace(inference, init="generative")

    def observe(free: States, _: States) -> Float[Array, "*image"]:
        return free.image

    images = infer_each(model, clamp_classes(model), inference, observe=observe).relaxation.observed
    return jax.vmap(model.to_images, in_axes=1)(images)


def diagnose(subject: Subject) -> Diagnosis:
    """Follow classification of the test images, and generation of every class."""
    images, labels = subject.test_images()
    generated = np.asarray(follow_generation(subject.model, subject.inference))
    dataset = subject.dataset
    means = class_means(dataset.test_images, dataset.test_labels, dataset.n_classes)
    errors = [generation_error(each, means) for each in generated]
    accuracies = None
    if subject.model.label_loss == "squared":
        right = in_parts(
            lambda pixels, own: follow_classification(
                subject.model, pixels, own, subject.inference, subject.key
            ),
            [images, labels],
            "following classification",
        )
        accuracies = (100 * right.mean(axis=0)).tolist()
    numbers = {"relaxed_accuracy": accuracies, "relaxed_generation_error": errors}
    steps = count_steps(subject.inference.n_steps)
    lines = [
        f"with the label clamped, {steps} of inference: generation error {errors[0]:.4f} → "
        f"{errors[-1]:.4f}"
    ]
    if accuracies:
        lines.append(
            f"with the image clamped, {steps} of inference: accuracy {accuracies[0]:.2f} % → "
            f"{accuracies[-1]:.2f} %"
        )
    return Diagnosis(numbers, lines, {"steps.png": draw(numbers)})


def draw(numbers: Mapping[str, Any]) -> Figure:
    """Draw accuracy and generation error by inference over inference steps."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), numbers, strict=True):
        clamped, least_span = _PANELS[name]
        axes.set(title=f"{METRICS[name].title} ({clamped} clamped)", ylabel=METRICS[name].unit)
        axes.title.set_fontsize(10)
        label_steps(axes)
        axes.grid(alpha=0.3)
        if not numbers[name]:
            axes.text(0.5, 0.5, "no free label under cross-entropy", ha="center")
            continue
        axes.plot(numbers[name], marker=marker_of(numbers[name]), markersize=4)
        write_ticks_in_full(axes, least_span)
    return figure
