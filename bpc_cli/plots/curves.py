"""A run's curves: its metrics over iterations."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from bpc_cli.evaluation.metrics import METRICS, Metric
from bpc_cli.plots.axes import label_log_axis_plainly
from bpc_cli.plots.saving import save_figure

# Matplotlib is imported inside functions, as it is slow to import and most commands end without.
if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLES = ("-", "--", "-.", ":")

MetricsLines = Sequence[Mapping[str, int | float | None]]


def save_curves(
    path: Path,
    lines: MetricsLines,
    title: str,
    label_loss: str | None = "squared",
    formats: Sequence[str] = (),
) -> None:
    """Save a run's curves; `draw_curves` and `save_figure` explain the arguments."""
    save_figure(draw_curves(lines, title, label_loss), path, formats)


def draw_curves(lines: MetricsLines, title: str, label_loss: str | None = "squared") -> "Figure":
    """Draw a run's metrics over iterations: mean and range over seeds, in the table's panels.

    Args:
        lines: metrics lines, a line per iteration and seed.
        title: what stands above the panels.
        label_loss: the run's `model.label_loss`, on which the unit of a loss depends.
    """
    from matplotlib.figure import Figure

    panels = _panels(lines)
    width = 10 / 3 * max(len(panels), 1)
    figure = Figure(figsize=(width, 3.4))
    # Margins by hand: a layout engine draws everything twice, which is what most of a curve costs.
    figure.subplots_adjust(
        left=0.7 / width, right=1 - 0.15 / width, bottom=0.15, top=0.88, wspace=0.36
    )
    for number, (panel, metrics) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), number)
        _draw_panel(axes, panel, metrics, lines, label_loss)
    figure.suptitle(title)
    return figure


def _panels(lines: MetricsLines) -> dict[str, list[Metric]]:
    """Sort the metrics that lines have a number for by the panel that they are drawn in."""
    panels: dict[str, list[Metric]] = {}
    for metric in METRICS.values():
        if metric.panel and any(line.get(metric.name) is not None for line in lines):
            panels.setdefault(metric.panel, []).append(metric)
    return panels


def _draw_panel(
    axes: "Axes", panel: str, metrics: list[Metric], lines: MetricsLines, label_loss: str | None
) -> None:
    units = list(dict.fromkeys(metric.unit_under(label_loss) for metric in metrics))
    for metric, style in zip(metrics, itertools.cycle(_STYLES)):
        # Two units on one axis can be told apart in the legend alone.
        label = metric.title if len(units) == 1 else metric.axis_label(label_loss)
        _draw_seeds(axes, lines, metric, style, label)
    shared = f"{panel} ({' or '.join(filter(None, units))})" if any(units) else panel
    axes.set_xlabel("iteration")
    axes.set_ylabel(metrics[0].axis_label(label_loss) if len(metrics) == 1 else shared)
    axes.grid(alpha=0.3)
    axes.ticklabel_format(style="plain", useOffset=False)
    if any(metric.log_axis for metric in metrics):
        axes.set_yscale("log")
        label_log_axis_plainly(axes.yaxis)
    if len(metrics) > 1:
        axes.legend()


def _draw_seeds(axes: "Axes", lines: MetricsLines, metric: Metric, style: str, label: str) -> None:
    """Draw a metric over iterations: the mean of all seeds, and from the lowest to the highest."""
    by_iteration: dict[float | None, list[float]] = {}
    for line in lines:
        value = line.get(metric.name)
        # A test's metrics are measured at few iterations; a training step's None is a gap.
        if metric.measure is None or value is not None:
            numbers = by_iteration.setdefault(line["iteration"], [])
            numbers.append(np.nan if value is None else value)
    iterations = np.array(list(by_iteration), np.float64)
    means = [fmean(numbers) for numbers in by_iteration.values()]
    marker = "" if metric.measure is None and len(iterations) > 1 else "o"
    (curve,) = axes.plot(iterations, means, linestyle=style, marker=marker, label=label)
    if any(len(numbers) > 1 for numbers in by_iteration.values()):
        low = [min(numbers) for numbers in by_iteration.values()]
        high = [max(numbers) for numbers in by_iteration.values()]
        axes.fill_between(iterations, low, high, color=curve.get_color(), alpha=0.2, linewidth=0)
