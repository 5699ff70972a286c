"""The figure of the learning curves: metrics over iterations."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bpc_cli.evaluation.metrics import Metric
from bpc_cli.evaluation.statistics import whole
from bpc_cli.reporting.configurations import Comparison, Configuration
from bpc_cli.reporting.figures.panels import (
    Look,
    add_legend,
    figure_with_panels,
    label_values,
    look_of,
)
from bpc_cli.reporting.reader import RunRecord

_MOST_CURVES = 24  # more would hide each other
_MOST_POINTS = 60


@dataclasses.dataclass(frozen=True)
class Curve:
    """A configuration's metric over iterations: mean, lowest and highest over seeds."""

    iterations: Float[np.ndarray, " points"]
    mean: Float[np.ndarray, " points"]
    low: Float[np.ndarray, " points"]
    high: Float[np.ndarray, " points"]


def draw_learning_curves(
    comparison: Comparison, configurations: Sequence[Configuration]
) -> Figure | None:
    """Draw every metric that runs are compared by over iterations: mean and range over seeds.

    Args:
        comparison: which metrics there are, and in which units.
        configurations: those of its configurations that are drawn.

    Returns:
        None where there is nothing to draw.
    """
    recorded = {name for each in configurations for run in each.runs for name in names_in(run)}
    metrics = [metric for metric in comparison.metrics if metric.name in recorded]
    if not metrics or not configurations:
        return None
    figure, panels = figure_with_panels(len(metrics), 0.18 * len(configurations))
    several = len(comparison.data_sets) > 1
    labels = [each.caption if several else each.label for each in configurations]
    for axes, metric in zip(panels, metrics, strict=True):
        for number, (configuration, label) in enumerate(zip(configurations, labels, strict=True)):
            if curve := curve_of(configuration, metric):
                _draw_curve(axes, curve, label, look_of(number, len(configurations)))
        axes.set_xlabel("iteration")
        label_values(axes, metric, comparison.label_loss)
    add_legend(figure, panels, n_columns=2 if max(map(len, labels)) < 50 else 1)
    return figure


def names_in(run: RunRecord) -> set[str]:
    """List the metrics that a run recorded as it trained."""
    return {name for line in run.lines[:1] + run.lines[-1:] for name in line}


def curve_of(
    configuration: Configuration, metric: Metric, most_points: int = _MOST_POINTS
) -> Curve | None:
    """Collect a metric by iteration over a configuration's seeds; None if they share no iteration.

    What is known of every iteration, as losses are, is averaged over stretches of iterations first,
    as a single batch's loss varies much.
    """
    included = {whole(line, "seed") for line in configuration.lines}
    by_seed: dict[int, dict[int, float]] = {seed: {} for seed in included}
    for run in configuration.runs:
        for line in run.lines:
            value, seed = line.get(metric.name), whole(line, "seed")
            if seed in included and value is not None:
                by_seed[seed][whole(line, "iteration")] = value
    shared = sorted(set.intersection(*(set(own) for own in by_seed.values())))
    if not shared:
        return None
    values = np.array([[own[iteration] for iteration in shared] for own in by_seed.values()])
    stretches = np.array_split(np.arange(len(shared)), min(len(shared), most_points))
    points = np.array([values[:, stretch].mean(axis=1) for stretch in stretches])
    middles = np.array([np.mean([shared[i] for i in stretch]) for stretch in stretches])
    return Curve(middles, points.mean(axis=1), points.min(axis=1), points.max(axis=1))


def spread_out(configurations: Sequence[Configuration]) -> list[Configuration]:
    """Choose as many configurations as curves can be told apart, evenly."""
    if len(configurations) <= _MOST_CURVES:
        return list(configurations)
    chosen = np.linspace(0, len(configurations) - 1, _MOST_CURVES).round().astype(int)
    return [configurations[i] for i in chosen]


def _draw_curve(axes: Axes, curve: Curve, label: str, look: Look) -> None:
    every = max(1, len(curve.iterations) // 8)
    axes.plot(curve.iterations, curve.mean, label=label, markevery=every, **look)
    axes.fill_between(
        curve.iterations, curve.low, curve.high, color=look["color"], alpha=0.15, linewidth=0
    )
