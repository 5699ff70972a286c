"""Metrics under the names that trackers show them by."""

from collections.abc import Sequence

from bpc_cli.evaluation.statistics import MetricsLine, whole

_NOT_METRICS = {"iteration", "epoch", "seed", "seconds"}


def metrics_by_iteration(lines: Sequence[MetricsLine]) -> dict[int, dict[str, float]]:
    """Sort the numbers of metrics lines by iteration; of several seeds each has its own name."""
    several = len({line["seed"] for line in lines}) > 1
    numbers_of: dict[int, dict[str, float]] = {}
    for line in lines:
        numbers = numbers_of.setdefault(whole(line, "iteration"), {})
        for name, value in line.items():
            if name not in _NOT_METRICS and value is not None:
                numbers[f"{name}/seed_{line['seed']}" if several else name] = value
    return numbers_of
