"""What a report's figures share: panels, axes with units, one legend, and looks that differ."""

from collections.abc import Sequence
from typing import TypedDict

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bpc_cli.evaluation.metrics import Metric
from bpc_cli.plots.axes import label_log_axis_plainly
from bpc_cli.reporting.text import shortened

_MARKERS = "osD^vP*X"
_STYLES = ("-", "--", "-.", ":")
MOST_IN_LEGEND = 60  # beside which a figure would be too high to save
_LONGEST_LABEL = 160


class Look(TypedDict):
    color: tuple[float, float, float, float]
    marker: str
    linestyle: str
    markersize: float
    linewidth: float


def figure_with_panels(n_panels: int, legend_inches: float) -> tuple[Figure, list[Axes]]:
    """Make a figure of two panels a row, or of three that are all, with room for a legend below."""
    n_columns = 3 if n_panels == 3 else min(n_panels, 2)
    n_rows = -(-n_panels // n_columns)
    width = 14 if n_columns == 3 else 10
    figure = Figure(figsize=(width, 0.6 + 3.6 * n_rows + legend_inches), layout="constrained")
    return figure, [figure.add_subplot(n_rows, n_columns, k + 1) for k in range(n_panels)]


def label_values(axes: Axes, metric: Metric, label_loss: str | None) -> None:
    axes.set_ylabel(metric.axis_label(label_loss))
    axes.grid(alpha=0.3)
    if metric.log_axis:
        axes.set_yscale("log")
        label_log_axis_plainly(axes.yaxis)


def add_legend(figure: Figure, panels: Sequence[Axes], n_columns: int = 1) -> None:
    """Add one legend of what any of the panels shows, the first where there are too many."""
    shown = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    labels = list(shown)[:MOST_IN_LEGEND]
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


def look_of(number: int, total: int) -> Look:
    """Choose a look that colour, marker and style each tell apart, as on a grey print."""
    shade = 0.05 + 0.8 * (number / max(total - 1, 1))
    return {
        "color": colormaps["viridis"](shade),
        "marker": _MARKERS[number % len(_MARKERS)],
        "linestyle": _STYLES[number % len(_STYLES)],
        "markersize": 4.5,
        "linewidth": 1.4,
    }
