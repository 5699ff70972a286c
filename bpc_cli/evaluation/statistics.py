"""What several seeds' figures say together: mean, standard deviation, bootstrap interval."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

_RESAMPLES = 9_999
_CONFIDENCE = 0.95


class Spread(NamedTuple):
    """Figures of several seeds, summed up.

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


def spread(figures: Sequence[float]) -> Spread:
    """Sum up one figure of several seeds.

    The interval is the percentile bootstrap's (Efron & Tibshirani 1993, section 13.3), of 9,999
    resamples from a fixed seed. With few seeds it is too narrow: five are not a hundred.
    """
    values = np.asarray(figures, np.float64)
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
    ).confidence_interval
    return Spread(mean, std, float(interval.low), float(interval.high), len(values))


def mean_line(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Average metrics lines of one iteration, a line per seed; a single one stays as it is."""
    if len(lines) == 1:
        return dict(lines[0])
    return {
        key: value if key in ("iteration", "epoch", "seconds") else _mean_of(lines, key)
        for key, value in lines[0].items()
        if key != "seed"
    }


def spreads(lines: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Sum up every metric of one iteration's lines, a line per seed."""
    figures = {
        key: [line[key] for line in lines]
        for key in lines[0]
        if key not in ("iteration", "epoch", "seconds", "seed")
    }
    return {
        key: spread(values)._asdict()
        for key, values in figures.items()
        if all(value is not None for value in values)
    }


def _mean_of(lines: Sequence[Mapping[str, Any]], key: str) -> float | None:
    values = [line[key] for line in lines]
    return None if None in values else float(np.mean(values))
