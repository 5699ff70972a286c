"""Numbers of several seeds summed up, against enumerations and the standard library."""

import itertools
import statistics

import numpy as np
import pytest

from bpc_cli.evaluation.statistics import mean_line, spread, spreads


def every_resample_mean(numbers):
    return sorted(map(statistics.fmean, itertools.product(numbers, repeat=len(numbers))))


@pytest.mark.parametrize("numbers", [[1.0, 4.0], [85.2, 84.1, 86.3], [1.0, 2.0, 4.0, 8.0, 16.0]])
def test_the_interval_is_that_of_all_resamples(numbers):
    means = every_resample_mean(numbers)
    result = spread(numbers)
    assert result.mean == pytest.approx(statistics.fmean(numbers))
    assert result.std == pytest.approx(statistics.stdev(numbers))
    # Random resamples, not all: the percentile may fall on a neighbour of the exact one.
    for end, fraction in ((result.low, 0.025), (result.high, 0.975)):
        fractions = [max(fraction - 0.01, 0), min(fraction + 0.01, 1)]
        low, high = np.quantile(means, fractions, method="inverted_cdf")
        assert low - 1e-6 <= end <= high + 1e-6


def test_one_seed_has_no_interval():
    assert spread([3.0]) == (3.0, None, None, None, 1)


def test_equal_numbers_have_an_interval_of_no_width():
    assert spread([2.0] * 4) == (2.0, 0.0, 2.0, 2.0, 4)


def test_lines_are_averaged_by_metric_and_a_missing_one_stays_missing():
    lines = [
        {"iteration": 5, "epoch": 0, "seed": k, "seconds": 1.5, "gen_loss": float(k), "x": None}
        for k in (3, 4)
    ]
    assert mean_line(lines) == {
        "iteration": 5,
        "epoch": 0,
        "seconds": 1.5,
        "gen_loss": 3.5,
        "x": None,
    }
    assert mean_line(lines[:1]) == lines[0]
    assert list(spreads(lines)) == ["gen_loss"]
    assert spreads(lines)["gen_loss"]["n"] == 2
