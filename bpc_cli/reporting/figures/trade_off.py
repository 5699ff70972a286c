"""The figure of the trade-off: metrics against what was swept, and against each other."""

import json
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bpc_cli.evaluation.metrics import OF_HALF_HIDDEN, Metric
from bpc_cli.evaluation.statistics import Spread
from bpc_cli.reporting.configurations import Comparison, Configuration, describe, in_words
from bpc_cli.reporting.figures.panels import (
    MOST_IN_LEGEND,
    Look,
    add_legend,
    figure_with_panels,
    label_values,
    look_of,
)
from bpc_cli.reporting.figures.swept import SweptAxis, swept_axes

_MOST_NAMED = 12  # points, whose values would cover each other

Families = list[tuple[str, list[Configuration]]]


def draw_trade_off(comparison: Comparison) -> Figure | None:
    """Draw the metrics that have a direction against what was swept, and against each other.

    Bars are 95 % intervals over seeds. A line joins the configurations that differ in nothing but
    the option along x, where that is a number; 0 is at the left of a log axis, off its scale.

    Returns:
        None where there is nothing to draw.
    """
    # Completion has a figure of its own.
    metrics = [m for m in comparison.metrics if m.better and m not in OF_HALF_HIDDEN]
    if not comparison.configurations or not metrics:
        return None
    swept = swept_axes(comparison)[0]
    families = _families(comparison.configurations, swept)
    if not families:
        return None
    n_panels = len(metrics) + (len(metrics) >= 2)
    figure, panels = figure_with_panels(n_panels, 0.22 * min(len(families), MOST_IN_LEGEND))
    looks = [look_of(number, len(families)) for number in range(len(families))]
    for axes, metric in zip(panels, metrics, strict=False):
        for (label, members), look in zip(families, looks, strict=True):
            _draw_family(axes, members, swept, metric, label, look)
        swept.label(axes)
        label_values(axes, metric, comparison.label_loss)
    if n_panels > len(metrics):
        _draw_against_each_other(panels[-1], families, looks, swept, metrics[:2])
        label_values(panels[-1], metrics[0], comparison.label_loss)
    if len(families) > 1:
        add_legend(figure, panels)
    return figure


def _draw_family(
    axes: Axes,
    members: Sequence[Configuration],
    swept: SweptAxis,
    metric: Metric,
    label: str,
    look: Look,
) -> None:
    """Draw the configurations that differ in nothing but what was swept."""
    points = [
        (place, each.spreads[metric.name])
        for each in members
        if metric.name in each.spreads and (place := swept.place_of(each)) is not None
    ]
    points.sort(key=lambda point: point[0])
    axes.errorbar(
        [place for place, _ in points],
        [spread.mean for _, spread in points],
        yerr=_bars([spread for _, spread in points]),
        capsize=3,
        label=label,
        **_joined(look, swept),
    )


def _draw_against_each_other(
    axes: Axes,
    families: Families,
    looks: Sequence[Look],
    swept: SweptAxis,
    metrics: Sequence[Metric],
) -> None:
    """Draw the first metric, upwards, against the second."""
    upwards, along = metrics
    for (label, members), look in zip(families, looks, strict=True):
        points = [
            each
            for each in members
            if {upwards.name, along.name} <= set(each.spreads) and swept.place_of(each) is not None
        ]
        ups, alongs = ([each.spreads[m.name] for each in points] for m in (upwards, along))
        axes.errorbar(
            [spread.mean for spread in alongs],
            [spread.mean for spread in ups],
            xerr=_bars(alongs),
            yerr=_bars(ups),
            capsize=2,
            label=label,
            **_joined(look, swept),
        )
        if len(families) == 1 and len(points) <= _MOST_NAMED:
            for each, up, beside in zip(points, ups, alongs, strict=True):
                axes.annotate(
                    in_words(each.options[swept.option]),
                    (beside.mean, up.mean),
                    xytext=(4, 4),
                    textcoords="offset points",
                    fontsize=7,
                    parse_math=False,
                )
    axes.set_xlabel(along.axis_label())


def _bars(spreads: Sequence[Spread]) -> np.ndarray | None:
    """Return how far intervals reach below and above means; nothing where there are none."""
    reaches = [
        (0.0, 0.0) if s.low is None or s.high is None else (s.mean - s.low, s.high - s.mean)
        for s in spreads
    ]
    return np.maximum(reaches, 0.0).T if reaches else None  # seeds that agree: up to rounding


def _joined(look: Look, swept: SweptAxis) -> Look:
    """Choose a look whose line joins points only where there is an order to follow."""
    joined = look.copy()
    if swept.scale == "words":
        joined["linestyle"] = "none"
    return joined


def _families(configurations: Sequence[Configuration], swept: SweptAxis) -> Families:
    """Sort configurations by all but what was swept, each family with a label.

    Data sets are never joined; what cannot be drawn is left out.
    """
    families: dict[str, list[Configuration]] = {}
    for each in configurations:
        if swept.place_of(each) is not None:
            others = each.options_but(swept.option)
            key = json.dumps([each.data_set, list(others.values())])
            families.setdefault(key, []).append(each)
    alike = {option for option in configurations[0].options if _is_shared(option, configurations)}
    labelled = []
    for members in families.values():
        others = describe(members[0].options_but(swept.option, *alike))
        data_set = members[0].data_set
        labelled.append((f"{data_set}: {others}" if others else data_set, members))
    return labelled


def _is_shared(option: str, configurations: Sequence[Configuration]) -> bool:
    return len({each.options[option] for each in configurations}) == 1
