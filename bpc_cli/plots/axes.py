"""Axes that are labelled in plain numbers."""

from collections.abc import Sized
from typing import TYPE_CHECKING

# Matplotlib is imported inside functions, as it is slow to import and most commands end without.
if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

_MOST_MARKED = 12  # points of a curve


def label_log_axis_plainly(axis: "Axis") -> None:
    """Write 0.01 instead of a formula, whose layout is half the time of drawing the curves."""
    from matplotlib.ticker import LogFormatter

    class PlainFormatter(LogFormatter):
        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""

    axis.set_major_formatter(PlainFormatter())
    axis.set_minor_formatter(PlainFormatter(minor_thresholds=(2, 0.5)))


def label_steps(axes: "Axes") -> None:
    """Count inference steps along an axis; there are no halves of them."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("inference step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))


def marker_of(steps: Sized) -> str:
    """Choose what marks each step: a dot, where there are few enough to tell apart."""
    return "o" if len(steps) <= _MOST_MARKED else ""


def write_ticks_in_full(axes: "Axes", least_span: float) -> None:
    """Write the vertical axis's numbers without an offset, and let it span at least so much."""
    low, high = axes.get_ylim()
    missing = max(least_span - (high - low), 0) / 2
    axes.set_ylim(low - missing, high + missing)
    axes.ticklabel_format(axis="y", style="plain", useOffset=False)
