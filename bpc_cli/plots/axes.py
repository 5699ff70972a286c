"""Axes that are labelled in plain numbers."""

import math
from collections.abc import Sequence, Sized
from typing import TYPE_CHECKING

import numpy as np

# Matplotlib is imported inside functions, as it is slow to import and most commands end without.
if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

_MOST_MARKED = 12  # points of a curve
_MOST_NUMBERS = 6  # on a logarithmic axis of less than the fewest decades, as on a linear one
_FEWEST_DECADES = 0.7
_FEW_DECADES = 2.5  # up to here 0.2 and 0.5 are marked, too


def label_log_axis_plainly(axis: "Axis") -> None:
    """Mark a logarithmic axis where numbers stand, and write 0.01 instead of a formula.

    Minor ticks and formulas would be half the time of drawing a run's curves.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    class PlainLocator(LogLocator):
        def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
            n_decades = np.log10(vmax / vmin) if 0 < vmin < vmax else math.inf
            if n_decades < _FEWEST_DECADES:
                return MaxNLocator(_MOST_NUMBERS).tick_values(vmin, vmax)
            self.set_params(subs=(1, 2, 5) if n_decades <= _FEW_DECADES else (1,))
            return super().tick_values(vmin, vmax)

    axis.set_major_locator(PlainLocator())
    axis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:g}"))
    axis.set_minor_locator(NullLocator())


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
