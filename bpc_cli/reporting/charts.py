"""What the charts of a report's page are drawn from: configurations, and their learning curves."""

from typing import Any

import numpy as np

from bpc_cli.evaluation.metrics import METRICS, Metric
from bpc_cli.evaluation.statistics import Spread, whole
from bpc_cli.options.declare import option_fields
from bpc_cli.options.schema import TrainConfig
from bpc_cli.reporting.configurations import Comparison, Configuration, in_words
from bpc_cli.reporting.figures.learning_curves import curve_of, names_in
from bpc_cli.reporting.figures.swept import SweptAxis, swept_axes
from bpc_cli.reporting.metrics_lines import is_number
from bpc_cli.reporting.text import shortened

_MOST_CONFIGURATIONS = 1_000
_MOST_OPTIONS = 30
_MOST_NUMBERS = 150_000  # of all curves together
_MOST_POINTS = 60  # of a curve
_FEWEST_POINTS = 8
_LONGEST_LABEL = 160
_DATA_SET = "data set"  # is chosen as an option is, where there are several

_SHORT_NAMES = {path: field.metadata["short"] for path, field in option_fields(TrainConfig)}


def chart_data(comparison: Comparison) -> dict[str, Any] | None:
    """Collect what charts show, as JSON takes it.

    Curves are thinned out, and numbers rounded to five digits, so that a page on a hundred runs
    stays small.

    Returns:
        None where there is nothing to draw. Otherwise `options` (what differs, the one that charts
        have along x first), `metrics`, `configurations` (with the place of each option's value
        among the option's values, each metric's spread over seeds, and a curve for each metric),
        and how many configurations are left out.
    """
    shown = comparison.configurations[:_MOST_CONFIGURATIONS]
    metrics = _metrics_of(comparison)
    if not metrics or not shown:
        return None
    axes = swept_axes(comparison)[:_MOST_OPTIONS]
    if len(comparison.data_sets) > 1:
        axes.append(SweptAxis(_DATA_SET, comparison.data_sets, "words"))
    n_points = _MOST_NUMBERS // (4 * len(shown) * len(metrics))
    most = min(_MOST_POINTS, max(_FEWEST_POINTS, n_points))
    compared = {metric.name for metric in comparison.metrics}
    return {
        "options": [_option(axis) for axis in axes],
        "metrics": [_metric(m, comparison.label_loss, m.name in compared) for m in metrics],
        "nCompared": len(compared),
        "configurations": [_configuration(each, axes, metrics, most) for each in shown],
        "nLeftOut": len(comparison.configurations) - len(shown),
    }


def _metrics_of(comparison: Comparison) -> list[Metric]:
    """List the metrics by which runs are compared, and then the others that runs have recorded."""
    compared = comparison.metrics
    recorded = {
        name for each in comparison.configurations for run in each.runs for name in names_in(run)
    }
    others = [m for m in METRICS.values() if m not in compared and m.name in recorded]
    return [*compared, *others]


def _option(axis: SweptAxis) -> dict[str, Any]:
    return {
        "name": axis.title,
        "short": _SHORT_NAMES.get(axis.option) or axis.option.rpartition(".")[2],
        "scale": axis.scale,
        "words": [in_words(value) for value in axis.values],
        "numbers": [float(v) for v in axis.values if is_number(v) and axis.scale != "words"],
    }


def _metric(metric: Metric, label_loss: str | None, is_compared: bool) -> dict[str, Any]:
    return {
        "name": metric.name,
        "title": metric.axis_label(label_loss),
        "short": metric.title,
        "decimals": metric.decimals,
        "better": metric.better,
        "isLog": metric.log_axis,
        "isCompared": is_compared,
    }


def _configuration(
    configuration: Configuration, axes: list[SweptAxis], metrics: list[Metric], most_points: int
) -> dict[str, Any]:
    return {
        "label": shortened(configuration.label, _LONGEST_LABEL),
        "dataSet": configuration.data_set,
        "places": [_place(configuration, axis) for axis in axes],
        "nSeeds": len(configuration.lines),
        "spreads": {name: _spread(each) for name, each in configuration.spreads.items()},
        "nIterations": max(whole(line, "iteration") for line in configuration.lines),
        "curves": _curves(configuration, metrics, most_points),
    }


def _place(configuration: Configuration, axis: SweptAxis) -> int | None:
    """Find the place of a configuration's value among an option's values."""
    is_data_set = axis.option == _DATA_SET
    value = configuration.data_set if is_data_set else configuration.options.get(axis.option)
    return axis.values.index(value) if value in axis.values else None


def _spread(spread: Spread) -> list[float | None]:
    return [None if each is None else _rounded(each) for each in spread[:4]]


def _curves(
    configuration: Configuration, metrics: list[Metric], most_points: int
) -> dict[str, list[list[float]]]:
    """Collect the curves of a configuration: iterations, means, lowest and highest over seeds."""
    curves = {}
    for metric in metrics:
        if curve := curve_of(configuration, metric, most_points):
            rows = [curve.iterations, curve.mean]
            rows += [curve.low, curve.high] if len(configuration.lines) > 1 else []
            if np.isfinite(rows).all():
                curves[metric.name] = [[_rounded(number) for number in row] for row in rows]
    return curves


def _rounded(number: float) -> float:
    return float(f"{number:.5g}")
