"""Every metric once: name, unit, direction, decimals, axis label, and how a test computes it.

Metrics lines, summaries, curves, the report and `bpc-eval` read this table, so that a new metric of
a test is a row here and the function that it names. No JAX is needed.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Integer, UInt8

from bpc_cli.evaluation.network_tests import NetworkTest
from bpc_cli.options.names import HIDDEN_PARTS

UNIT_PIXELS = "RMSE, pixels in [0, 1]"


@dataclasses.dataclass(frozen=True)
class Metric:
    """One number that a run or an evaluation reports.

    Attributes:
        name: its key in `metrics.jsonl`, `summary.json`, `metrics.json` and `results.csv`.
        title: what it is called in a table or beside an axis.
        unit: its unit; "" for a number of none.
        decimals: how many are shown.
        better: whether "higher" or "lower" values are better; None where neither is.
        unit_in_nats: whether it is in nats where `model.label_loss` is cross_entropy.
        panel: which panel of a run's curves it is drawn in; "" for none.
        log_axis: whether it is drawn over a logarithmic axis.
        compared: whether a report compares runs by it.
        measure: computes it from a test, or returns None where the model has not what it is of;
            None for what a training step or inference reports.
    """

    name: str
    title: str
    unit: str
    decimals: int
    better: Literal["higher", "lower"] | None = None
    unit_in_nats: bool = False
    panel: str = ""
    log_axis: bool = False
    compared: bool = False
    measure: Callable[[NetworkTest], float | None] | None = None

    def unit_under(self, label_loss: str | None) -> str:
        """Name its unit under a `model.label_loss`; None stands for runs of both."""
        if not self.unit_in_nats or label_loss == "squared":
            return self.unit
        return "nats" if label_loss == "cross_entropy" else f"{self.unit} or nats"

    def axis_label(self, label_loss: str | None = "squared") -> str:
        """Name it with its unit, as beside an axis or above a column."""
        unit = self.unit_under(label_loss)
        return f"{self.title} ({unit})" if unit else self.title

    def in_words(self, value: float) -> str:
        """Write a value with its decimals, and a per-cent sign where that is its unit."""
        return f"{value:.{self.decimals}f}{' %' if self.unit == '%' else ''}"


def accuracy(
    predicted: Integer[np.ndarray, " examples"], actual: Integer[np.ndarray, " examples"]
) -> float:
    """Compute the percentage of all examples whose class is predicted."""
    return 100.0 * int(np.sum(np.asarray(predicted) == np.asarray(actual))) / len(actual)


def generation_error(
    generated: Float[np.ndarray, "classes image"], means: Float[np.ndarray, "classes image"]
) -> float:
    """Compute the RMSE of generated images against class means, over pixels of classes present.

    Both are on the scale where black is 0 and white is 1; generated images are not clipped.
    """
    present = ~np.isnan(means).any(axis=1)
    difference = np.asarray(generated, np.float64)[present] - means[present]
    return float(np.sqrt(np.mean(difference**2)))


def class_means(
    images: UInt8[np.ndarray, "examples image"],
    labels: Integer[np.ndarray, " examples"],
    n_classes: int,
) -> Float[np.ndarray, "classes image"]:
    """Average each class's images; pixels in [0, 1], NaN for a class without examples."""
    means = np.full((n_classes, images.shape[1]), np.nan)
    for label in range(n_classes):
        members = images[labels == label]
        if len(members):
            means[label] = members.mean(axis=0, dtype=np.float64) / 255
    return means


def least_generator_loss(
    images: UInt8[np.ndarray, "examples image"],
    labels: Integer[np.ndarray, " examples"],
    std: float | Sequence[float],
) -> float:
    """Compute the least that the generator's loss on images can be.

    It generates one image for a label, at best the mean of the label's images x:
    ½ · mean over pixels of (x - mean of x's class)², in network units.

    Args:
        images, labels: the images, and the class of each.
        std: what pixels in [0, 1] are divided by; one number, or one for each channel.
    """
    pixels = images / (255 * np.resize(std, images.shape[1]))  # channels vary fastest
    left = sum(
        float(np.sum((own - own.mean(axis=0)) ** 2))
        for own in (pixels[labels == label] for label in np.unique(labels))
    )
    return left / pixels.size / 2


def confusion_matrix(
    predicted: Integer[np.ndarray, " examples"],
    actual: Integer[np.ndarray, " examples"],
    n_classes: int,
) -> Integer[np.ndarray, "classes classes"]:
    """Count examples by actual class (rows) and predicted class (columns)."""
    pairs = np.asarray(actual, np.int64) * n_classes + np.asarray(predicted, np.int64)
    return np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)


def per_class_accuracy(
    confusion: Integer[np.ndarray, "classes classes"],
) -> list[float | None]:
    """Compute each class's accuracy in percent; None for a class without examples."""
    counts = confusion.sum(axis=1)
    return [
        100.0 * int(confusion[i, i]) / int(count) if count else None
        for i, count in enumerate(counts)
    ]


_OF_WHOLE_IMAGES = (
    Metric(
        "gen_loss",
        "generator's loss",
        *("½ MSE", 4),
        panel="loss",
        log_axis=True,
        compared=True,
    ),
    Metric(
        "amort_loss",
        "amortiser's loss",
        *("½ MSE", 4),
        unit_in_nats=True,
        panel="loss",
        log_axis=True,
        compared=True,
    ),
    Metric(
        "energy_before",
        "energy before inference",
        "per sample",
        4,
        panel="energy",
        log_axis=True,
    ),
    Metric(
        "energy_after", "energy after inference", "per sample", 4, panel="energy", log_axis=True
    ),
    Metric("generator_energy", "energy that the generator learns from", "per sample", 4),
    Metric("amortiser_energy", "energy that the amortiser learns from", "per sample", 4),
    Metric("inference_steps", "inference steps", "", 1),
    Metric("climbing_fraction", "samples whose energy inference raises", "fraction", 4),
    Metric(
        "test_accuracy",
        "test accuracy",
        *("%", 2, "higher"),
        panel="test accuracy",
        compared=True,
        measure=lambda test: (
            None if test.predicted is None else accuracy(test.predicted, test.labels)
        ),
    ),
    Metric(
        "generation_error",
        "generation error",
        *(UNIT_PIXELS, 4, "lower"),
        compared=True,
        measure=lambda test: (
            None if test.generated is None else generation_error(test.generated, test.class_means)
        ),
    ),
    Metric(
        "reconstruction_error",
        "reconstruction error",
        *(UNIT_PIXELS, 4, "lower"),
        panel="reconstruction error",
        compared=True,
        measure=lambda test: test.reconstruction and test.reconstruction.error,
    ),
    Metric("relaxed_accuracy", "accuracy by inference", "%", 2, "higher", compared=True),
    Metric(
        "lowest_energy_accuracy",
        "accuracy of energy-based classification",
        *("%", 2, "higher"),
        compared=True,
    ),
    Metric(
        "relaxed_generation_error",
        "generation error by inference",
        *(UNIT_PIXELS, 4, "lower"),
        compared=True,
    ),
    Metric(
        "relaxed_reconstruction_error",
        "reconstruction error by inference",
        *(UNIT_PIXELS, 4, "lower"),
        compared=True,
    ),
    Metric("linear_decoding", "linear decoding of the top state", "%", 2, "higher", compared=True),
    Metric(
        "relaxed_linear_decoding",
        "linear decoding of the top state by inference",
        *("%", 2, "higher"),
        compared=True,
    ),
    Metric("sample_score", "score of samples", "", 3, "higher", compared=True),
    Metric(
        "sample_frechet_distance",
        "Fréchet distance of samples",
        *("by the classifier's features", 2, "lower"),
        compared=True,
    ),
    Metric("sample_accuracy", "samples recognised", "%", 2, "higher", compared=True),
    Metric("activity_change", "change of activities by inference", "fraction", 4),
    Metric(
        "generation_activity_change",
        "change of activities by inference, in generation",
        *("fraction", 4),
    ),
)


def _of_half_hidden(part: str) -> tuple[Metric, ...]:
    """List the metrics of completion, of test images of which half is hidden."""
    hidden = "random half hidden" if part == "random" else f"{part} half hidden"
    return (
        Metric(f"{part}_half_accuracy", f"accuracy, {hidden}", *("%", 2, "higher"), compared=True),
        Metric(
            f"{part}_half_relaxed_accuracy",
            f"accuracy by inference, {hidden}",
            *("%", 2, "higher"),
            compared=True,
        ),
        Metric(
            f"{part}_half_rmse",
            f"error of pixels by inference, {hidden}",
            *(UNIT_PIXELS, 4, "lower"),
            compared=True,
        ),
    )


OF_HALF_HIDDEN = tuple(metric for part in HIDDEN_PARTS for metric in _of_half_hidden(part))
METRICS: dict[str, Metric] = {
    metric.name: metric for metric in (*_OF_WHOLE_IMAGES, *OF_HALF_HIDDEN)
}
TEST_METRICS = tuple(metric for metric in METRICS.values() if metric.measure is not None)


def measure_test(test: NetworkTest) -> dict[str, float]:
    """Compute every metric that a test has."""
    values = {metric.name: metric.measure(test) for metric in TEST_METRICS if metric.measure}
    return {name: value for name, value in values.items() if value is not None}


def tested_metrics(*, has_label: bool, has_latent: bool) -> list[Metric]:
    """List the metrics that tests of a model have, the one that its best state is chosen by first.

    Args:
        has_label: whether its top state has a label.
        has_latent: whether it has latent units.
    """
    of_label, of_latent = TEST_METRICS[:2], TEST_METRICS[2:]
    return [*of_label * has_label, *of_latent * has_latent]
