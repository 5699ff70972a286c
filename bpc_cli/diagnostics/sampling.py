"""Sampling: images sampled from the energy by Langevin steps, and how good they are."""

from typing import Any

import numpy as np
from jaxtyping import Float, Integer
from matplotlib.figure import Figure

from bpc_cli.diagnostics import Diagnosis, Subject
from bpc_cli.diagnostics.completion import draw_completed
from bpc_cli.errors import UserError
from bpc_cli.evaluation.metrics import accuracy
from bpc_cli.evaluation.reference_classifier import Judged, reference_classifier
from bpc_cli.evaluation.sample_quality import (
    autocorrelation,
    autocorrelation_time,
    classifier_score,
    frechet_distance,
)
from bpc_cli.evaluation.sampling import Samples, sample_images

NEEDS = ("samples",)
RELAXES = ()
_ROWS = 8  # of the grid: samples of each class
_COLUMNS = 10


def metrics_of(numbers: dict[str, Any]) -> dict[str, float]:
    """Take the metrics by which runs are compared."""
    names = ("sample_score", "sample_frechet_distance", "sample_accuracy")
    return {name: numbers[name] for name in names if numbers[name] is not None}


def diagnose(subject: Subject) -> Diagnosis:
    """Sample images, and judge them by the features of a classifier of the same data set.

    Raises:
        UserError: if chains diverge.
    """
    model, dataset, how = subject.model, subject.dataset, subject.sampling
    samples = sample_images(
        model,
        subject.inference,
        how.langevin,
        how.n_samples,
        subject.key,
        label_known=how.label_known,
    )
    if not (np.isfinite(samples.images).all() and np.isfinite(samples.energies).all()):
        raise UserError(
            "chains of Langevin steps diverge: choose a smaller sampling.rate, the size of a step"
        )
    classifier = reference_classifier(dataset)
    known = how.label_known and model.n_classes > 0
    asked = np.arange(how.n_samples) % max(model.n_classes, 1)
    groups = asked if known else np.zeros_like(asked)
    judged = classifier.judge(np.clip(samples.images, 0, 1))
    recognised = judged.probabilities.argmax(axis=1)
    numbers = _measure(judged, classifier.judge(dataset.test_images)) | {
        "sample_accuracy": accuracy(recognised, asked) if known else None,
        "n_samples": how.n_samples,
        "n_real": len(dataset.test_images),
        "label": "clamped" if known else "free",
        "noise": float(how.langevin.noise),
        "rate": float(how.langevin.rate),
        "burn_in": how.burn_in,
        "n_steps": how.langevin.n_steps,
        "autocorrelation_time": (
            autocorrelation_time(samples.energies[:, how.burn_in :], groups)
            if how.langevin.noise > 0
            else None
        ),
        "energy": samples.energies.mean(axis=0).tolist(),
        "classifier": classifier.checksum,
        "classifier_accuracy": classifier.test_accuracy,
        "n_features": judged.features.shape[1],
    }
    figures = {
        "sampled.png": _draw_grid(samples, dataset.class_names if known else (), subject),
        "sampling.png": _draw_chains(samples.energies, groups, how.burn_in),
    }
    return Diagnosis(numbers, _in_words(numbers), figures)


def _measure(judged: Judged, real: Judged) -> dict[str, float]:
    return {
        "sample_score": classifier_score(judged.probabilities),
        "test_score": classifier_score(real.probabilities),
        "sample_frechet_distance": frechet_distance(judged.features, real.features),
    }


def _in_words(numbers: dict[str, Any]) -> list[str]:
    recognised = numbers["sample_accuracy"]
    lines = [
        f"{numbers['n_samples']} images, label {numbers['label']}, noise {numbers['noise']:g}: "
        f"score {numbers['sample_score']:.2f} (test images {numbers['test_score']:.2f}), Fréchet "
        f"distance {numbers['sample_frechet_distance']:.1f}"
        + ("" if recognised is None else f"; {recognised:.2f} % are recognised as their class"),
        f"judged by a classifier trained here, {numbers['classifier_accuracy']:.2f} % on test "
        f"images: these numbers compare with those of classifier {numbers['classifier']} alone",
    ]
    fewest = min(numbers["n_samples"], numbers["n_real"])
    if fewest < 2 * numbers["n_features"]:
        lines.append(
            f"the Fréchet distance of {fewest} images by {numbers['n_features']} features is "
            "mostly their covariance's error: compare it at the same numbers of images alone"
        )
    if (time := numbers["autocorrelation_time"]) is None:
        return lines
    lines.append(
        f"of {numbers['n_steps']} steps the first {numbers['burn_in']} are burn-in; the energy's "
        f"autocorrelation time is {time:.0f} steps after it"
    )
    if numbers["n_steps"] - numbers["burn_in"] < 10 * time:
        lines.append(
            "steps after burn-in are fewer than ten autocorrelation times, which are then "
            "uncertain: sampling.n_steps and sampling.burn_in set more"
        )
    return lines


def _draw_grid(samples: Samples, class_names: Any, subject: Subject) -> Figure:
    """Draw the first samples: a column for each of the first classes, or, without a label, any."""
    n_columns = min(subject.model.n_classes or _COLUMNS, _COLUMNS, len(samples.images))
    stride = subject.model.n_classes or n_columns
    rows = [
        samples.images[first : first + n_columns] for first in range(0, len(samples.images), stride)
    ]
    named = [("", row) for row in rows[:_ROWS] if len(row) == n_columns]
    return draw_completed(named, subject.dataset.image_shape, list(class_names[:n_columns]))


def _draw_chains(
    energies: Float[np.ndarray, "samples steps"],
    groups: Integer[np.ndarray, " samples"],
    burn_in: int,
) -> Figure:
    """Draw the energy along chains, and its autocorrelation after burn-in."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    along, correlated = figure.subplots(1, 2)
    for chain in energies[:5]:
        along.plot(chain, color="C0", alpha=0.3, linewidth=0.7)
    along.plot(energies.mean(axis=0), color="C0", label="mean of all chains")
    along.axvspan(0, burn_in, color="0.9", label="burn-in")
    along.set(xlabel="Langevin step", ylabel="energy per sample", xlim=(0, energies.shape[1]))
    along.legend(fontsize=8)
    correlation = autocorrelation(energies[:, burn_in:], groups)
    shown = len(correlation) // 2
    correlated.plot(correlation[: max(shown, 1)], color="C0")
    correlated.axhline(0, color="0.5", linewidth=0.7)
    correlated.set(xlabel="Langevin steps apart", ylabel="autocorrelation of the energy")
    for axes in (along, correlated):
        axes.grid(alpha=0.3)
    return figure
