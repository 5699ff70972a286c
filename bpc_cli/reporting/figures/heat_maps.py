"""The figure of a sweep over two options: a heat map of each metric."""

import itertools

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bpc_cli.evaluation.metrics import Metric
from bpc_cli.reporting.configurations import Comparison, Configuration, in_words
from bpc_cli.reporting.figures.panels import figure_with_panels
from bpc_cli.reporting.figures.swept import SweptAxis, swept_axes
from bpc_cli.reporting.text import shortened

_MOST_VALUES = 40  # along either axis
_MOST_WRITTEN = 10  # values along x beside whose cells there is room for a number
_LONGEST_TICK = 16


def draw_heat_maps(comparison: Comparison) -> Figure | None:
    """Draw the mean of each metric that has a direction over the two options that were swept.

    Returns:
        None where not just two were, of one data set, or where either has a value alone.
    """
    axes = swept_axes(comparison)
    metrics = [metric for metric in comparison.metrics if metric.better is not None]
    has_grid = len(axes) == 2 and all(2 <= len(each.values) <= _MOST_VALUES for each in axes)
    if not has_grid or len(comparison.data_sets) != 1 or not metrics:
        return None
    along, upwards = axes
    figure, panels = figure_with_panels(len(metrics), 0.0)
    for panel, metric in zip(panels, metrics, strict=True):
        means = _grid(comparison.configurations, along, upwards, metric)
        _draw_map(figure, panel, means, metric, comparison.label_loss)
        panel.set_xlabel(along.title, parse_math=False)
        panel.set_ylabel(upwards.title, parse_math=False)
        panel.set_xticks(*_ticks(along), rotation=30, ha="right", parse_math=False)
        panel.set_yticks(*_ticks(upwards), parse_math=False)
    return figure


def _grid(
    configurations: list[Configuration], along: SweptAxis, upwards: SweptAxis, metric: Metric
) -> np.ndarray:
    """Sort means into rows and columns; NaN where no configuration has finished."""
    means = np.full((len(upwards.values), len(along.values)), np.nan)
    for each in configurations:
        x, y = each.options[along.option], each.options[upwards.option]
        if x in along.values and y in upwards.values and metric.name in each.spreads:
            means[upwards.values.index(y), along.values.index(x)] = each.spreads[metric.name].mean
    return means


def _draw_map(
    figure: Figure, panel: Axes, means: np.ndarray, metric: Metric, label_loss: str | None
) -> None:
    colours = "viridis" if metric.better == "higher" else "viridis_r"  # bright is better
    drawn = panel.imshow(means, cmap=colours, aspect="auto", origin="lower")
    figure.colorbar(drawn, ax=panel, label=metric.axis_label(label_loss))
    if means.shape[1] > _MOST_WRITTEN:
        return
    for row, column in itertools.product(*map(range, means.shape)):
        value = means[row, column]
        if np.isfinite(value):
            red, green, blue, _ = drawn.cmap(drawn.norm(value))
            is_bright = 0.3 * red + 0.6 * green + 0.1 * blue > 0.5
            panel.text(
                *(column, row, f"{value:.{metric.decimals}f}"),
                **{"ha": "center", "va": "center", "fontsize": 8},
                color="black" if is_bright else "white",
            )


def _ticks(axis: SweptAxis) -> tuple[range, list[str]]:
    labels = [shortened(in_words(value), _LONGEST_TICK) for value in axis.values]
    return range(len(labels)), labels
