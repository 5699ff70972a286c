"""What is searched: sweeps of Hydra's grammar on a command line, as Optuna's distributions."""

import decimal
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException

# Optuna is imported inside functions: most commands do without, and it takes a second.
if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_LOG = "log"


class Space(NamedTuple):
    """What is searched, and what is fixed.

    Attributes:
        distributions: a distribution for each option that is searched; of words as they are given
            on a command line, or of numbers.
        fixed: the other words of the command line.
    """

    distributions: "dict[str, BaseDistribution]"
    fixed: list[str]

    def words(self, values: Mapping[str, Any]) -> list[str]:
        """Write a trial's values, and what is fixed, as a job's words."""
        return [*self.fixed, *(f"{name}={values[name]}" for name in self.distributions)]

    def in_words(self) -> str:
        """Say what is searched."""
        return " × ".join(f"{name}={_in_words(d)}" for name, d in self.distributions.items())

    def key(self) -> str:
        """Return text by which two spaces can be compared."""
        from optuna.distributions import distribution_to_json

        searched = {name: distribution_to_json(d) for name, d in self.distributions.items()}
        return json.dumps([searched, sorted(self.fixed)], sort_keys=True)

    def corners(self) -> list[dict[str, Any]]:
        """Return values that must be possible if all are: the lowest, the highest, each word."""
        ends = {name: _ends(d) for name, d in self.distributions.items()}
        most = max(map(len, ends.values()))
        return [
            {name: values[min(number, len(values) - 1)] for name, values in ends.items()}
            for number in range(most)
        ]


def read_space(overrides: Sequence[Override]) -> Space:
    """Sort a command line's words into what is searched and what is fixed.

    Raises:
        HydraException: if nothing is searched, or what is cannot be.
    """
    last = {each.get_key_element(): each for each in overrides}  # of an option that is given twice
    distributions = {
        name: _distribution(each) for name, each in last.items() if each.is_sweep_override()
    }
    if not distributions:
        raise HydraException(
            "hydra/sweeper=optuna needs something to search, such as "
            "'forward_energy_weight=tag(log, interval(1e-4, 1))' or algorithm=bpc,hpc"
        )
    fixed = [str(each.input_line) for each in last.values() if not each.is_sweep_override()]
    return Space(distributions, fixed)


def _distribution(override: Override) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    sweep: Any = override.value()
    name, is_log = override.get_key_element(), _LOG in sweep.tags
    if unknown := sorted(sweep.tags - {_LOG}):
        raise HydraException(f"{name}: there is no tag '{unknown[0]}'; tag(log, …) is known")
    if not isinstance(sweep, IntervalSweep | RangeSweep):
        if is_log:
            raise HydraException(f"{name}: tag(log, …) is for an interval, not for single values")
        return CategoricalDistribution(list(dict.fromkeys(override.sweep_string_iterator())))
    low, high, step = _bounds(sweep)
    if not low < high:
        raise HydraException(f"{name}: nothing lies between {low} and {high}")
    if is_log and (low <= 0 or step is not None):
        why = "bounds above 0" if step is None else "an interval, not a range"
        raise HydraException(f"{name}: tag(log, …) needs {why}")
    is_whole = all(isinstance(number, int) for number in (low, high, step or 1))
    kind: Any = IntDistribution if is_whole else FloatDistribution
    return kind(low, high, log=is_log, step=(step or 1) if is_whole else step)


def _bounds(sweep: IntervalSweep | RangeSweep) -> tuple[Any, Any, Any]:
    """Return the lowest value, the highest, and the step between values, if there is one."""
    if isinstance(sweep, IntervalSweep):
        return sweep.start, sweep.end, None
    values = [_number(value) for value in sweep.range()]
    if not values:
        return _number(sweep.start), _number(sweep.stop), _number(sweep.step)
    return min(values), max(values), abs(_number(sweep.step))


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, decimal.Decimal) else value


def _ends(distribution: "BaseDistribution") -> list[Any]:
    if hasattr(distribution, "choices"):
        return list(getattr(distribution, "choices"))  # noqa: B009 - pyright knows no subclass here
    ends: Any = distribution
    return [ends.low, ends.high]


def _in_words(distribution: "BaseDistribution") -> str:
    known: Any = distribution
    if hasattr(known, "choices"):
        return ",".join(known.choices)
    scale = " (log)" if known.log else ""
    step = f" by {known.step:g}" if known.step not in (None, 1) else ""
    return f"[{known.low:g}, {known.high:g}]{step}{scale}"
