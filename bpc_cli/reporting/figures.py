"""The figures of a report: the trade-off over α_f, learning curves, and samples."""

import dataclasses
import io
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bpc_cli.errors import one_line
from bpc_cli.evaluation.metrics import Metric
from bpc_cli.evaluation.statistics import whole
from bpc_cli.files import write_atomically
from bpc_cli.plots import label_log_axis_plainly
from bpc_cli.reporting.configurations import WEIGHT, Comparison, Configuration, describe
from bpc_cli.reporting.metrics_lines import is_number
from bpc_cli.reporting.samples import animation, sample_picture
from bpc_cli.reporting.text import shortened

_MARKERS = "osD^vP*X"
_STYLES = ("-", "--", "-.", ":")
_MOST_CURVES = 24  # more would hide each other
_MOST_POINTS = 60
_MOST_IN_LEGEND = 60  # beside which a figure would be too high to save
_LONGEST_LABEL = 160
_WEIGHTS = (1e-30, 1e30)  # others cannot be drawn


@dataclasses.dataclass(frozen=True)
class ReportFigures:
    """A report's figures, as they are saved.

    Attributes:
        trade_off: metrics against α_f; None where no run has a weight.
        learning_curves: metrics over iterations; None without finished runs.
        n_curves: how many configurations the learning curves show.
        samples: a small sample grid for each configuration, as PNG; None where there is none.
        animations: a GIF for each configuration; None where it kept one grid at most.
        problems: a sentence for each figure that could not be drawn.
    """

    trade_off: Path | None
    learning_curves: Path | None
    n_curves: int
    samples: list[bytes | None]
    animations: list[Path | None]
    problems: list[str]


@dataclasses.dataclass(frozen=True)
class Curve:
    """A configuration's metric over iterations: mean, lowest and highest over seeds."""

    iterations: Float[np.ndarray, " points"]
    mean: Float[np.ndarray, " points"]
    low: Float[np.ndarray, " points"]
    high: Float[np.ndarray, " points"]


class _Look(TypedDict):
    color: tuple[float, float, float, float]
    marker: str
    linestyle: str
    markersize: float
    linewidth: float


def save_figures(comparison: Comparison, folder: Path) -> ReportFigures:
    """Save every figure of a report in a folder: curves as SVG and PNG, animations as GIF.

    Raises:
        OSError: if one cannot be written; one that cannot be drawn is left out.
    """
    curves = _spread_out(comparison.configurations)
    animations = []
    for number, configuration in enumerate(comparison.configurations):
        path, content = folder / f"samples_{number:03d}.gif", animation(configuration)
        if content is not None:
            write_atomically(path, content)
        animations.append(None if content is None else path)
    problems: list[str] = []

    def save(name: str, shown_as: str, draw: Callable[[], Figure | None]) -> Path | None:
        try:
            contents = _encoded(draw())
        except Exception as error:  # whatever numbers a run may have, the rest of a report is made
            title = name.replace("_", " ")
            problems.append(f"The figure of the {title} could not be drawn ({one_line(error)}).")
            return None
        for suffix, content in contents.items():
            write_atomically((folder / name).with_suffix(suffix), content)
        return (folder / name).with_suffix(shown_as) if contents else None

    return ReportFigures(
        # Vectors are small for the trade-off's few points; the curves' many are smaller as pixels.
        trade_off=save("trade_off", ".svg", lambda: draw_trade_off(comparison)),
        learning_curves=save(
            "learning_curves", ".png", lambda: draw_learning_curves(comparison, curves)
        ),
        n_curves=len(curves),
        samples=[sample_picture(configuration) for configuration in comparison.configurations],
        animations=animations,
        problems=problems,
    )


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
    figure, panels = _figure_with_panels(len(metrics), 0.22 * min(len(families), _MOST_IN_LEGEND))
    for axes, metric in zip(panels, metrics, strict=True):
        for number, (label, members) in enumerate(families):
            look = _look_of(number, len(families))
            _draw_family(axes, members, metric, zero_at, label, look)
        axes.set(xlabel="forward_energy_weight (α_f)", xscale="log")
        if 0 in weights:
            axes.axvline(zero_at, color="grey", linewidth=0.8, linestyle=":")
            axes.text(zero_at, 0.02, " α_f = 0", transform=axes.get_xaxis_transform())
        _label_values(axes, metric, comparison.label_loss)
    if len(families) > 1:
        _add_legend(figure, panels)
    return figure


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
    metrics = comparison.metrics
    if not metrics or not configurations:
        return None
    figure, panels = _figure_with_panels(len(metrics), 0.18 * len(configurations))
    several = len(comparison.data_sets) > 1
    labels = [each.caption if several else each.label for each in configurations]
    for axes, metric in zip(panels, metrics, strict=True):
        for number, (configuration, label) in enumerate(zip(configurations, labels, strict=True)):
            if curve := curve_of(configuration, metric):
                _draw_curve(axes, curve, label, _look_of(number, len(configurations)))
        axes.set_xlabel("iteration")
        _label_values(axes, metric, comparison.label_loss)
    _add_legend(figure, panels, n_columns=2 if max(map(len, labels)) < 50 else 1)
    return figure


def curve_of(configuration: Configuration, metric: Metric) -> Curve | None:
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
    stretches = np.array_split(np.arange(len(shared)), min(len(shared), _MOST_POINTS))
    points = np.array([values[:, stretch].mean(axis=1) for stretch in stretches])
    middles = np.array([np.mean([shared[i] for i in stretch]) for stretch in stretches])
    return Curve(middles, points.mean(axis=1), points.min(axis=1), points.max(axis=1))


def _draw_family(
    axes: Axes,
    members: Sequence[Configuration],
    metric: Metric,
    zero_at: float,
    label: str,
    look: _Look,
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


def _draw_curve(axes: Axes, curve: Curve, label: str, look: _Look) -> None:
    every = max(1, len(curve.iterations) // 8)
    axes.plot(curve.iterations, curve.mean, label=label, markevery=every, **look)
    axes.fill_between(
        curve.iterations, curve.low, curve.high, color=look["color"], alpha=0.15, linewidth=0
    )


def _figure_with_panels(n_panels: int, legend_inches: float) -> tuple[Figure, list[Axes]]:
    """Make a figure of two panels a row, with room for a legend below."""
    n_rows = -(-n_panels // 2)
    figure = Figure(figsize=(10, 0.6 + 3.6 * n_rows + legend_inches), layout="constrained")
    n_columns = min(n_panels, 2)
    return figure, [figure.add_subplot(n_rows, n_columns, k + 1) for k in range(n_panels)]


def _label_values(axes: Axes, metric: Metric, label_loss: str | None) -> None:
    axes.set_ylabel(metric.axis_label(label_loss))
    axes.grid(alpha=0.3)
    if metric.log_axis:
        axes.set_yscale("log")
        label_log_axis_plainly(axes.yaxis)


def _add_legend(figure: Figure, panels: Sequence[Axes], n_columns: int = 1) -> None:
    """Add one legend of what any of the panels shows, the first where there are too many."""
    shown = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    labels = list(shown)[:_MOST_IN_LEGEND]
    handles = [shown[label] for label in labels]
    if len(shown) > len(labels):
        labels[-1] = f"… and {len(shown) - len(labels) + 1} more"
    legend = figure.legend(
        handles,
        [shortened(label, _LONGEST_LABEL) for label in labels],
        loc="outside lower left",
        fontsize=8,
        ncols=n_columns,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)  # a dollar sign in an option is a dollar sign


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


def _look_of(number: int, total: int) -> _Look:
    """Choose a look that colour, marker and style each tell apart, as on a grey print."""
    shade = 0.05 + 0.8 * (number / max(total - 1, 1))
    return {
        "color": colormaps["viridis"](shade),
        "marker": _MARKERS[number % len(_MARKERS)],
        "linestyle": _STYLES[number % len(_STYLES)],
        "markersize": 4.5,
        "linewidth": 1.4,
    }


def _spread_out(configurations: Sequence[Configuration]) -> list[Configuration]:
    """Choose as many configurations as curves can be told apart, evenly."""
    if len(configurations) <= _MOST_CURVES:
        return list(configurations)
    chosen = np.linspace(0, len(configurations) - 1, _MOST_CURVES).round().astype(int)
    return [configurations[i] for i in chosen]


def _encoded(figure: Figure | None) -> dict[str, bytes]:
    """Draw a figure as SVG and PNG; nothing where there is none."""
    if figure is None:
        return {}
    contents = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that the font lacks, and of narrow panels
        # Without a date, the same runs make the same file.
        for suffix, metadata in ((".svg", {"Date": None}), (".png", None)):
            file = io.BytesIO()
            figure.savefig(file, format=suffix[1:], dpi=130, metadata=metadata)
            contents[suffix] = file.getvalue()
    return contents
