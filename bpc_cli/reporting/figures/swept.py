"""What was swept: the option that figures of a report have along their x axis, and its scale."""

import dataclasses
from collections.abc import Sequence
from typing import TypeGuard

from matplotlib.axes import Axes

from bpc_cli.reporting.configurations import WEIGHT, Comparison, Configuration, in_words
from bpc_cli.reporting.metrics_lines import is_number
from bpc_cli.reporting.reader import OptionValue
from bpc_cli.reporting.text import shortened

_DRAWABLE = (1e-30, 1e30)  # sizes of other numbers cannot be drawn
_LOG_FROM = 30.0  # the ratio of the largest to the smallest value from which an axis is a log one
_MOST_TICKS = 24
_MOST_LOG_TICKS = 10
_LONGEST_TICK = 24
_NAMES = {
    WEIGHT: "forward_energy_weight (α_f)",
    "backward_energy_weight": "backward_energy_weight (α_b)",
}


@dataclasses.dataclass(frozen=True)
class SweptAxis:
    """An option along an axis.

    Attributes:
        option: its dotted path.
        values: the values that configurations have, numbers in their order and then words.
        scale: "linear" or "log" of numbers; "words" where each value has a place of its own.
    """

    option: str
    values: Sequence[OptionValue]
    scale: str

    @property
    def title(self) -> str:
        """Its name beside an axis."""
        return _NAMES.get(self.option, self.option)

    @property
    def zero_at(self) -> float:
        """Where 0 stands on a log axis, which does not have it: a decade left of all others."""
        return min((float(v) for v in self.values if _is_drawable(v) and v > 0), default=1.0) / 10

    def place_of(self, configuration: Configuration) -> float | None:
        """Find a configuration's place; None where a damaged config has none that can be drawn."""
        value = configuration.options.get(self.option)
        if self.scale == "words":
            return float(self.values.index(value)) if value in self.values else None
        if not _is_drawable(value):
            return None
        return self.zero_at if value == 0 and self.scale == "log" else float(value)

    def label(self, axes: Axes) -> None:
        """Name a figure's x axis, and give it its scale."""
        axes.set_xlabel(self.title, parse_math=False)
        if self.scale == "words":
            shown = self.values[:_MOST_TICKS]
            labels = [shortened(in_words(value), _LONGEST_TICK) for value in shown]
            axes.set_xticks(range(len(shown)), labels, rotation=30, ha="right", parse_math=False)
        elif self.scale == "log":
            axes.set_xscale("log")
            if len(self.values) <= _MOST_LOG_TICKS:
                places = [float(v) or self.zero_at for v in self.values if is_number(v)]
                axes.set_xticks(places, [in_words(value) for value in self.values], rotation=30)
                axes.minorticks_off()
            if 0 in self.values:  # off the scale
                axes.axvline(self.zero_at, color="grey", linewidth=0.8, linestyle=":")


def swept_axes(comparison: Comparison) -> list[SweptAxis]:
    """List what differs between configurations as axes, what figures show along x first.

    That is α_f if it was swept; otherwise the option with the most numbers, or with the most words.
    Where nothing differs it is α_f.
    """
    axes = [
        swept_axis(option, comparison.configurations) for option in comparison.differing or [WEIGHT]
    ]
    return sorted(axes, key=lambda a: (a.option != WEIGHT, a.scale == "words", -len(a.values)))


def swept_axis(option: str, configurations: Sequence[Configuration]) -> SweptAxis:
    """Make an axis of an option."""
    values = list(dict.fromkeys(each.options.get(option) for each in configurations))
    numbers = [value for value in values if _is_drawable(value)]
    is_damaged = option == WEIGHT and bool(numbers)  # what is no number is left out of figures
    if len(numbers) < len(values) and not is_damaged:
        return SweptAxis(option, sorted(values, key=_number_first), "words")
    positive = [float(number) for number in numbers if number > 0]
    is_log = min(numbers) >= 0 and bool(positive)
    if option != WEIGHT:
        is_log = is_log and max(positive) >= _LOG_FROM * min(positive)
    return SweptAxis(option, sorted(numbers), "log" if is_log else "linear")


def _is_drawable(value: OptionValue) -> TypeGuard[int | float]:
    least, most = _DRAWABLE
    return is_number(value) and (value == 0 or least <= abs(value) <= most)


def _number_first(value: OptionValue) -> tuple[bool, float, str]:
    return (False, float(value), "") if _is_drawable(value) else (True, 0.0, str(value))
