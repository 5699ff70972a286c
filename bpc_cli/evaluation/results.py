"""What an evaluation found: each seed's results, all seeds' together, as JSON and as a table."""

import dataclasses
from collections.abc import Sequence
from statistics import fmean

import numpy as np

from bpc_cli.evaluation.metrics import (
    METRICS,
    TEST_METRICS,
    confusion_matrix,
    measure_test,
    per_class_accuracy,
)
from bpc_cli.evaluation.network_tests import NetworkTest
from bpc_cli.evaluation.statistics import Spread, spread
from bpc_cli.files import JsonObject

_FEEDFORWARD = (*TEST_METRICS, METRICS["linear_decoding"])
# Of activities, relative to where they were initialised.
LITTLE_CHANGE = 0.02
_DIVERGED = 1_000
Values = dict[str, float | None]
_WAYS = {"feedforward": "feedforward", "relaxed": "inference", "lowest_energy": "energy-based"}
# Tests by inference are of several relaxations: what is clamped, and what is measured of each; and
# the metric that a feedforward pass has in place of it.
_CHANGE = "change of activities"
_ROWS = {
    "relaxed_accuracy": ("image clamped: accuracy", "test_accuracy"),
    "activity_change": (f"image clamped: {_CHANGE}", None),
    "relaxed_generation_error": ("label clamped: generation error", "generation_error"),
    "generation_activity_change": (f"label clamped: {_CHANGE}", None),
    "lowest_energy_accuracy": ("both clamped: accuracy of energy-based classification", None),
    "relaxed_reconstruction_error": (
        "image clamped: reconstruction error",
        "reconstruction_error",
    ),
    "relaxed_linear_decoding": ("image clamped: linear decoding of the top", "linear_decoding"),
}


@dataclasses.dataclass(frozen=True)
class Cost:
    """What it costs to classify an image.

    Attributes:
        flops: operations, as the compiler counts them.
        milliseconds: wall time, less that of compiling.
    """

    flops: float
    milliseconds: float


@dataclasses.dataclass(frozen=True)
class InferenceResult:
    """What a model does by inference at test time.

    Attributes:
        values: the metrics of it by name; None where one cannot be had.
        cost_per_image: what each way of classifying costs.
    """

    values: Values
    cost_per_image: dict[str, Cost]


@dataclasses.dataclass(frozen=True)
class SeedResult:
    """What one seed's model does on the test set.

    Attributes:
        seed: the seed.
        values: the metrics of its feedforward passes by name.
        per_class_accuracy: in percent by class; None for a class without images. Empty, as is the
            confusion matrix, where the model has no label.
        confusion: counts by actual class (rows) and predicted class.
        by_inference: what it does by inference; None where it does not infer.
        diagnostics: the numbers of each diagnostic that was asked for.
        diagnosis_steps: how many inference steps those took that take any, by name.
    """

    seed: int
    values: Values
    per_class_accuracy: Values
    confusion: list[list[int]]
    by_inference: InferenceResult | None = None
    diagnostics: JsonObject = dataclasses.field(default_factory=dict)
    diagnosis_steps: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def all_values(self) -> Values:
        """All metrics by name."""
        return self.values | (self.by_inference.values if self.by_inference else {})

    def to_json(self) -> JsonObject:
        """Lay it out as in `metrics.json`."""
        costs = (
            {}
            if self.by_inference is None
            else {"cost_per_image": self.by_inference.cost_per_image}
        )
        return {
            "seed": self.seed,
            **self.all_values,
            "per_class_accuracy": self.per_class_accuracy,
            "confusion": self.confusion,
            **_costs_as_json(costs),
            **({"diagnostics": self.diagnostics} if self.diagnostics else {}),
            **({"diagnosis_steps": self.diagnosis_steps} if self.diagnosis_steps else {}),
        }


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What an evaluation of a checkpoint found.

    Attributes:
        checkpoint: the checkpoint's path.
        run: its run's directory, seen from the evaluation's; None if it is in none.
        iteration: the training iteration that it is of.
        data_set: what was tested on.
        test_examples: how many images.
        trained_on: the data set that was trained on.
        inference_steps: how many steps inference takes; 0 where there is none.
        seeds: each seed's results.
    """

    checkpoint: str
    run: str | None
    iteration: int
    data_set: str
    test_examples: int
    trained_on: str
    inference_steps: int
    seeds: list[SeedResult]

    def spreads(self) -> dict[str, Spread]:
        """Sum up every metric over seeds, where all have it."""
        columns = {
            name: [seed.all_values[name] for seed in self.seeds]
            for name in self.seeds[0].all_values
        }
        return {
            name: spread([float(value) for value in values if value is not None])
            for name, values in columns.items()
            if None not in values
        }

    def confusion(self) -> np.ndarray:
        """Add up all seeds' confusion matrices."""
        return np.sum([seed.confusion for seed in self.seeds], axis=0)

    def per_class_accuracy(self) -> Values:
        """Average each class's accuracy over seeds."""
        return {
            name: _mean([seed.per_class_accuracy[name] for seed in self.seeds])
            for name in self.seeds[0].per_class_accuracy
        }

    def to_json(self) -> JsonObject:
        """Lay it out as in `metrics.json`: of several seeds means, spreads, and each seed's own."""
        about = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name != "seeds"
        }
        first = self.seeds[0].to_json()
        if len(self.seeds) == 1:
            return about | first
        spreads = self.spreads()
        means = {
            name: spreads[name].mean if name in spreads else None
            for name in self.seeds[0].all_values
        }
        return {
            **about,
            **means,
            "per_class_accuracy": self.per_class_accuracy(),
            "confusion": self.confusion().tolist(),
            **({"cost_per_image": first["cost_per_image"]} if "cost_per_image" in first else {}),
            "spread": {name: each._asdict() for name, each in spreads.items()},
            "seeds": [seed.to_json() for seed in self.seeds],
        }

    def in_a_line(self) -> str:
        """Write the metrics by which runs are compared, as a line of a sweep."""
        spreads = self.spreads()
        compared = [m for m in METRICS.values() if m.compared and m.name in spreads]
        return ", ".join(f"{m.title} {m.in_words(spreads[m.name].mean)}" for m in compared)

    def table(self) -> str:
        """Write it as a table."""
        rows = [
            ("checkpoint", f"{self.checkpoint} (iteration {self.iteration})"),
            ("data set", f"{self.data_set}, {self.test_examples} test images"),
        ]
        spreads = self.spreads()
        for metric in (metric for metric in _FEEDFORWARD if metric.name in spreads):
            rows += self._metric_rows(metric.name, spreads[metric.name])
            if metric.name == "test_accuracy":
                rows += [
                    (f"  class {name}", "no images" if each is None else metric.in_words(each))
                    for name, each in self.per_class_accuracy().items()
                ]
        if self.seeds[0].by_inference is not None:
            rows += self._inference_rows(self.seeds[0].by_inference, spreads)
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)

    def _metric_rows(self, name: str, values: Spread) -> list[tuple[str, str]]:
        metric = METRICS[name]
        unit = "" if metric.unit in ("", "%") else f" ({metric.unit})"
        rows = [
            (
                metric.title,
                f"{metric.in_words(values.mean)}{_in_words(values, metric.decimals)}{unit}",
            )
        ]
        if len(self.seeds) > 1:
            rows += [
                (f"  seed {each.seed}", metric.in_words(each.values[name] or 0.0))
                for each in self.seeds
            ]
        return rows

    def _inference_rows(
        self, first: InferenceResult, spreads: dict[str, Spread]
    ) -> list[tuple[str, str]]:
        rows = [("by inference", count_steps(self.inference_steps))]
        for name, (title, feedforward) in _ROWS.items():
            if name not in spreads:
                continue
            mean = spreads[name].mean
            words = METRICS[name].in_words(mean)
            if feedforward is not None:
                before = METRICS[feedforward].in_words(spreads[feedforward].mean)
                words += f" (feedforward {before})"
            if title.endswith(_CHANGE):
                words = f"{100 * mean:.2f} % of where they were initialised"
            if name == "activity_change":
                words += verdict_on(mean, " in classification")
            elif title.endswith(_CHANGE) and not mean < _DIVERGED:
                words += verdict_on(mean, " in generation")
            rows.append((f"  {title}", words))
        for way, cost in first.cost_per_image.items():
            spent = f"{cost.flops / 1e6:,.2f} MFLOP, {cost.milliseconds:.3f} ms per image"
            rows.append((f"  cost, {_WAYS[way]}", spent))
        return rows


def describe_test(test: NetworkTest, seed: int, class_names: Sequence[str]) -> SeedResult:
    """Measure one seed's test."""
    if test.predicted is None:
        return SeedResult(seed, dict(measure_test(test)), {}, [])
    confusion = confusion_matrix(test.predicted, test.labels, len(class_names))
    accuracies = per_class_accuracy(confusion)
    return SeedResult(
        seed,
        dict(measure_test(test)),
        dict(zip(class_names, accuracies, strict=True)),
        confusion.tolist(),
    )


def verdict_on(change: float, where: str = "") -> str:
    """Say whether inference does next to nothing or diverges, given how far activities move."""
    if not change < _DIVERGED:
        return f": inference diverges{where}, and a smaller optim.activity_lr may help"
    return f": inference does next to nothing{where}" if change < LITTLE_CHANGE else ""


def count_steps(number: int) -> str:
    """Write a number of inference steps."""
    return f"{number} step" if number == 1 else f"{number} steps"


def _costs_as_json(costs: dict[str, dict[str, Cost]]) -> JsonObject:
    return {
        name: {way: dataclasses.asdict(cost) for way, cost in each.items()}
        for name, each in costs.items()
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None


def _in_words(values: Spread, decimals: int) -> str:
    if values.low is None:
        return ""
    low, high = (f"{end:.{decimals}f}" for end in (values.low, values.high))
    return f" ± {values.std:.{decimals}f}, mean in [{low}, {high}] at 95 % ({values.n} seeds)"
