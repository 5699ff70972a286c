"""Metrics under the names that trackers show them by."""

from collections.abc import Sequence

from bpc_cli.evaluation.statistics import MetricsLine, mean_line, whole

_NOT_METRICS = {"iteration", "epoch", "seed", "seconds"}


def metrics_by_iteration(lines: Sequence[MetricsLine]) -> dict[int, dict[str, float]]:
    """Sort the numbers of metrics lines by iteration.

    Of several seeds each has its own name, and the mean has the metric's.
    """
    of_iteration: dict[int, list[MetricsLine]] = {}
    for line in lines:
        of_iteration.setdefault(whole(line, "iteration"), []).append(line)
    return {
        iteration: _numbers(mean_line(own))
        | {
            f"{name}/seed_{line['seed']}": value
            for line in (own if len(own) > 1 else [])
            for name, value in _numbers(line).items()
        }
        for iteration, own in of_iteration.items()
    }


def _numbers(line: MetricsLine) -> dict[str, float]:
    return {
        name: value
        for name, value in line.items()
        if name not in _NOT_METRICS and value is not None
    }
