"""The figure of the trade-off: classification and generation against α_f."""

import json
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bpc_cli.evaluation.metrics import Metric
from bpc_cli.reporting.configurations import WEIGHT, Comparison, Configuration, describe
from bpc_cli.reporting.metrics_lines import is_number
from bpc_cli.reporting.panels import (
    MOST_IN_LEGEND,
    Look,
    add_legend,
    figure_with_panels,
    label_values,
    look_of,
)

_WEIGHTS = (1e-30, 1e30)  # others cannot be drawn


def draw_trade_off(comparison: Comparison) -> Figure | None:
    """Draw the metrics that have a direction against α_f, with 95 % intervals over seeds.

    A line joins the configurations that differ in α_f alone; α_f = 0 is at the left, off the scale.

    Returns:
        None where there is nothing to draw.
    """
    metrics = [metric for metric in comparison.metrics if metric.better is not None]
    weights = {_weight_of(each) for each in comparison.configurations} - {None}
    if not weights or not metrics:
        return None
    zero_at = min((weight for weight in weights if weight and weight > 0), default=1.0) / 10
    families = _families(comparison.configurations)
    figure, panels = figure_with_panels(len(metrics), 0.22 * min(len(families), MOST_IN_LEGEND))
    for axes, metric in zip(panels, metrics, strict=True):
        for number, (label, members) in enumerate(families):
            look = look_of(number, len(families))
            _draw_family(axes, members, metric, zero_at, label, look)
        axes.set(xlabel="forward_energy_weight (α_f)", xscale="log")
        if 0 in weights:
            axes.axvline(zero_at, color="grey", linewidth=0.8, linestyle=":")
            axes.text(zero_at, 0.02, " α_f = 0", transform=axes.get_xaxis_transform())
        label_values(axes, metric, comparison.label_loss)
    if len(families) > 1:
        add_legend(figure, panels)
    return figure


def _draw_family(
    axes: Axes,
    members: Sequence[Configuration],
    metric: Metric,
    zero_at: float,
    label: str,
    look: Look,
) -> None:
    """Draw a line through the configurations that differ in α_f alone."""
    points = [
        (weight or zero_at, each.spreads[metric.name])
        for each in members
        if metric.name in each.spreads and (weight := _weight_of(each)) is not None
    ]
    bars = [
        (0.0, 0.0) if s.low is None or s.high is None else (s.mean - s.low, s.high - s.mean)
        for _, s in points
    ]
    axes.errorbar(
        [weight for weight, _ in points],
        [s.mean for _, s in points],
        yerr=np.array(bars).T if bars else None,
        capsize=3,
        label=label,
        **look,
    )


def _families(
    configurations: Sequence[Configuration],
) -> list[tuple[str, list[Configuration]]]:
    """Sort configurations by all but α_f, each family with a label; data sets are never joined."""
    families: dict[str, list[Configuration]] = {}
    for each in configurations:
        key = json.dumps([each.data_set, list(each.others.values())])
        families.setdefault(key, []).append(each)
    labelled = []
    for members in families.values():
        others = describe(members[0].others)
        data_set = members[0].data_set
        labelled.append((f"{data_set}: {others}" if others else data_set, members))
    return labelled


def _weight_of(configuration: Configuration) -> float | None:
    """Return a configuration's α_f; None where a damaged config has none that can be drawn."""
    weight, (least, most) = configuration.options[WEIGHT], _WEIGHTS
    return float(weight) if is_number(weight) and (weight == 0 or least <= weight <= most) else None
