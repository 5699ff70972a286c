"""Numbers of several seeds summed up: mean, standard deviation, bootstrap interval."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

_RESAMPLES = 9_999
_CONFIDENCE = 0.95
_MOST_AT_ONCE = 10**7  # numbers drawn; all of them for up to a thousand seeds
_NOT_AVERAGED = ("iteration", "epoch", "seconds", "seed")

MetricsLine = dict[str, int | float | None]  # of metrics.jsonl: numbers by name; None for no number


class Spread(NamedTuple):
    """Numbers of several seeds, summed up.

    Attributes:
        mean: their mean.
        std: their standard deviation (n - 1 in the denominator); None for a single one.
        low, high: the 95 % bootstrap interval of the mean; None for a single one.
        n: how many there are.
    """

    mean: float
    std: float | None
    low: float | None
    high: float | None
    n: int


def spread(numbers: Sequence[int | float]) -> Spread:
    """Sum up one number of several seeds.

    The interval is the percentile bootstrap's (Efron & Tibshirani 1993, section 13.3), of 9,999
    resamples from a fixed seed. With few seeds it is too narrow: five are not a hundred.
    """
    values = np.asarray(numbers, np.float64)
    mean = float(values.mean())
    if len(values) == 1:
        return Spread(mean, None, None, None, 1)
    std = float(values.std(ddof=1))
    if std == 0 or not np.isfinite(values).all():
        return Spread(mean, std, mean, mean, len(values))
    from scipy.stats import bootstrap  # slow to import, and a single seed does without

    interval = bootstrap(
        (values,),
        np.mean,
        n_resamples=_RESAMPLES,
        confidence_level=_CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
        batch=max(1, min(_RESAMPLES, _MOST_AT_ONCE // len(values))),
    ).confidence_interval
    return Spread(mean, std, float(interval.low), float(interval.high), len(values))


def whole(line: MetricsLine, name: str) -> int:
    """Return a line's "iteration" or "seed", which are whole numbers in every line."""
    return int(line[name] or 0)


def mean_line(lines: Sequence[Mapping[str, int | float | None]]) -> MetricsLine:
    """Average metrics lines of one iteration, a line per seed; a single one stays as it is.

    Returns:
        Each metric's mean, None where a seed has none; iteration, epoch and seconds of the first.
    """
    if len(lines) == 1:
        return dict(lines[0])
    return {
        key: value if key in _NOT_AVERAGED else _mean_of(lines, key)
        for key, value in lines[0].items()
        if key != "seed"
    }


def spreads(
    lines: Sequence[Mapping[str, int | float | None]],
) -> dict[str, dict[str, float | None]]:
    """Sum up every metric that each of one iteration's lines, a line per seed, has a number for.

    Returns:
        A dictionary of `Spread`'s fields for each metric, as `summary.json` holds it.
    """
    numbers = {
        key: [value for line in lines if (value := line[key]) is not None]
        for key in lines[0]
        if key not in _NOT_AVERAGED
    }
    return {
        key: spread(values)._asdict()
        for key, values in numbers.items()
        if len(values) == len(lines)
    }


def _mean_of(lines: Sequence[Mapping[str, int | float | None]], key: str) -> float | None:
    values = [value for line in lines if (value := line[key]) is not None]
    return float(np.mean(values)) if len(values) == len(lines) else None
