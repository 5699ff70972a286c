"""Diagnostics of a trained network: each measures something, and draws it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from bpc_cli.core.rules import Rules
from bpc_cli.data.datasets import Dataset
from bpc_cli.data.pixels import PixelScale, normalise
from bpc_cli.diagnostics import figures
from bpc_cli.diagnostics.completion import HIDDEN_PARTS, complete, hidden_pixels
from bpc_cli.diagnostics.hessian import curvature
from bpc_cli.diagnostics.landscape import xor_landscapes
from bpc_cli.diagnostics.probe import activities_of, probe
from bpc_cli.diagnostics.trajectories import follow_drawing, follow_inference, follow_naming
from bpc_cli.errors import UserError
from bpc_cli.evaluation.by_inference import Networks
from bpc_cli.evaluation.classification import class_means, generation_error

_PROBE_TRAINING_IMAGES = 5_000
_SHOWN = 8


class Subject(NamedTuple):
    """What is diagnosed.

    Attributes:
        networks: generator and amortiser.
        rules: how activities relax.
        dataset: the data set to test on.
        scale: how pixels are normalised.
        batch_size: the one of training.
        n_images: how many test images to use, the first.
        image: the number of the test image that is looked at alone.
        hidden: shares of pixels that are hidden.
    """

    networks: Networks
    rules: Rules
    dataset: Dataset
    scale: PixelScale
    batch_size: int
    n_images: int
    image: int
    hidden: Sequence[float]

    def test_images(self) -> tuple[Array, Array]:
        """Take the test images to use, and their labels."""
        n = self.n_images
        return jnp.asarray(self.dataset.test_images[:n]), jnp.asarray(self.dataset.test_labels[:n])


def diagnose(
    subject: Subject, names: Sequence[str], directory: Path | None
) -> tuple[dict[str, Any], list[str]]:
    """Make the diagnostics that are named.

    Args:
        subject: what is diagnosed.
        names: keys of `DIAGNOSTICS`.
        directory: where pictures go; None: none are drawn.

    Returns:
        Numbers by name, and lines that say what they come to.

    Raises:
        UserError: if one cannot be made of this subject.
    """
    numbers, lines = {}, []
    for name in names:
        numbers[name], said = DIAGNOSTICS[name](subject, directory)
        lines += [f"{name}: {line}" for line in said]
    return numbers, lines


def _inference(subject: Subject, directory: Path | None) -> tuple[dict[str, Any], list[str]]:
    images, labels = subject.test_images()
    trajectory = follow_inference(
        subject.networks, images, labels, subject.scale, subject.rules, subject.batch_size
    )
    numbers = {
        name: {"mean": rows.mean(axis=0).tolist(), "std": rows.std(axis=0).tolist()}
        for name, rows in ((name, np.asarray(rows)) for name, rows in trajectory._asdict().items())
    }
    moved = numbers["from_start"]["mean"][-1]
    gradients = numbers["gradient"]["mean"]
    lines = [
        f"with image and label clamped, {subject.rules.n_inference_steps} steps move activities by "
        f"{100 * moved:.2f} % of where they start"
        + (": inference does next to nothing" if moved < 0.02 else "")
    ]
    if gradients[0] > 0:
        lines.append(f"the gradient falls to {gradients[-1] / gradients[0]:.3f} of what it was")
    if directory is not None:
        figures.save_inference(directory / "inference.png", numbers, moved)
    return numbers, lines


def _steps(subject: Subject, directory: Path | None) -> tuple[dict[str, Any], list[str]]:
    images, labels = subject.test_images()
    arguments = (subject.scale, subject.rules, subject.batch_size)
    drawn = np.asarray(follow_drawing(subject.networks, *arguments))
    dataset = subject.dataset
    means = class_means(dataset.test_images, dataset.test_labels, dataset.n_classes)
    errors = [generation_error(each, means) for each in drawn]
    accuracies = None
    if subject.rules.label_loss == "squared":
        right = follow_naming(subject.networks, images, labels, *arguments)
        accuracies = (100 * np.asarray(right).mean(axis=0)).tolist()
    numbers = {"relaxed_accuracy": accuracies, "relaxed_generation_error": errors}
    lines = [f"relaxing takes the generation error from {errors[0]:.4f} to {errors[-1]:.4f}"]
    if accuracies:
        lines.append(f"… and accuracy from {accuracies[0]:.2f} % to {accuracies[-1]:.2f} %")
    if directory is not None:
        figures.save_steps(directory / "steps.png", numbers)
    return numbers, lines


def _hessian(subject: Subject, directory: Path | None) -> tuple[dict[str, Any], list[str]]:
    dataset, number = subject.dataset, subject.image
    if number >= len(dataset.test_images):
        raise UserError(
            f"diagnosis.image must be below {len(dataset.test_images)}, the number of test images"
        )
    label = jnp.eye(dataset.n_classes)[int(dataset.test_labels[number])]
    image = normalise(jnp.asarray(dataset.test_images[number]), subject.scale)
    try:
        measured = curvature(subject.networks, label, image, subject.rules)
    except ValueError as error:
        raise UserError(f"diagnostics=[hessian]: {error}") from error
    condition = "infinite" if measured.condition is None else f"{measured.condition:.3g}"
    line = f"of test image {number}, condition number {condition}"
    if measured.n_negative:
        line += f", {measured.n_negative} directions that fall"
    return measured._asdict(), [line]


def _probe(subject: Subject, directory: Path | None) -> tuple[dict[str, Any], list[str]]:
    dataset = subject.dataset
    images, labels = subject.test_images()
    n = _PROBE_TRAINING_IMAGES
    arguments = (subject.scale, subject.rules, subject.batch_size)
    train = activities_of(subject.networks, jnp.asarray(dataset.train_images[:n]), *arguments)
    test = activities_of(subject.networks, images, *arguments)
    numbers = {
        when: [
            probe(np.asarray(a), dataset.train_labels[:n], np.asarray(b), np.asarray(labels))
            for a, b in zip(trained, tested, strict=True)
        ]
        for when, trained, tested in zip(("start", "relaxed"), train, test, strict=True)
    }
    lines = [
        f"layer {layer} from the label: {start:.2f} % where it starts, {relaxed:.2f} % relaxed"
        for layer, (start, relaxed) in enumerate(zip(*numbers.values(), strict=True))
    ]
    if directory is not None:
        figures.save_probe(directory / "probe.png", numbers)
    return numbers, lines


def _completion(subject: Subject, directory: Path | None) -> tuple[dict[str, Any], list[str]]:
    dataset = subject.dataset
    images, labels = subject.test_images()
    true, named = np.asarray(images) / 255, np.asarray(labels)
    numbers: dict[str, Any] = {"hidden": list(subject.hidden)}
    lines, shown = [], []
    for part in HIDDEN_PARTS:
        numbers[part] = rows = []
        for share in subject.hidden:
            hidden = hidden_pixels(part, share, dataset.image_shape, len(images))
            made = complete(
                *(subject.networks, images, jnp.asarray(hidden), subject.scale, subject.rules),
                subject.batch_size,
            )
            completed, drawn = np.asarray(made.images), np.asarray(made.drawn)
            rows.append(
                {
                    "accuracy_by_pass": 100 * float(np.mean(made.by_pass == named)),
                    "accuracy_by_relaxation": 100 * float(np.mean(made.by_relaxation == named)),
                    "rmse": _rmse(completed, true, hidden),
                    "rmse_drawn": _rmse(drawn, true, hidden),
                }
            )
            if share == subject.hidden[len(subject.hidden) // 2]:
                shown.append((part, share, hidden[:_SHOWN], completed[:_SHOWN], drawn[:_SHOWN]))
                figure = rows[-1]
                lines.append(
                    f"{part}, {100 * share:g} % hidden: {figure['accuracy_by_pass']:.2f} % by a "
                    f"pass, {figure['accuracy_by_relaxation']:.2f} % by relaxation, RMSE "
                    f"{figure['rmse']:.3f}"
                )
    if directory is not None:
        figures.save_completion(directory / "completion.png", numbers)
        figures.save_completed(
            directory / "completed.png", true[:_SHOWN], shown, dataset.image_shape
        )
    return numbers, lines


def _landscape(subject: Subject, directory: Path | None) -> tuple[dict[str, Any], list[str]]:
    landscapes = xor_landscapes()
    numbers = {
        name: {"path": each.path.tolist(), "named": each.named.tolist()}
        for name, each in landscapes.items()
    }
    if directory is not None:
        figures.save_landscapes(directory / "landscape.png", landscapes)
    return numbers, ["XOR in two hidden units, trained by each algorithm that infers"]


def _rmse(made: np.ndarray, true: np.ndarray, hidden: np.ndarray) -> float | None:
    """Compute the RMSE of hidden pixels, on the scale where black is 0 and white is 1."""
    return float(np.sqrt(np.mean((made - true)[hidden] ** 2))) if hidden.any() else None


Diagnostic = Callable[[Subject, Path | None], tuple[dict[str, Any], list[str]]]
DIAGNOSTICS: dict[str, Diagnostic] = {
    "inference": _inference,
    "steps": _steps,
    "hessian": _hessian,
    "probe": _probe,
    "completion": _completion,
    "landscape": _landscape,
}
