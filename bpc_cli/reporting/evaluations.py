"""Evaluations read back and put beside the final metrics of the runs that they are of."""

import dataclasses
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bpc_cli.evaluation.metrics import METRICS
from bpc_cli.evaluation.statistics import MetricsLine
from bpc_cli.files import parse_json, read_inside
from bpc_cli.options.names import HIDDEN_PARTS
from bpc_cli.reporting.metrics_lines import is_number
from bpc_cli.reporting.reader import CompletionRow, RunRecord
from bpc_cli.runs.directory import EVALUATION

_MOST_BYTES = 2**26
_MOST_SEEDS = 10_000
_MOST_FRACTIONS = 1_000
_COMPLETION = ("accuracy_by_pass", "accuracy_by_relaxation", "rmse", "rmse_drawn")
_LARGEST = 1e300  # means of several numbers stay finite


class FoundEvaluation(NamedTuple):
    """What an evaluation measured of a run.

    Attributes:
        run: the run's directory, without links.
        iteration: the training iteration that was evaluated.
        n_test: how many test images it was on.
        by_seed: every seed's metrics by name.
        completion: every seed's completion, as a `RunRecord` has it.
    """

    run: str
    iteration: int
    n_test: int
    by_seed: dict[int, dict[str, int | float]]
    completion: dict[int, dict[str, list[CompletionRow]]]


def find_evaluations(directories: Iterable[Path]) -> list[FoundEvaluation]:
    """Read the evaluations at or below directories; what is none is left out.

    Those of the fewest test images come first, and of as many the oldest.

    They may come from a stranger, as runs may: nothing in them is believed or executed.
    """
    found = {}
    for directory in directories:
        for folder, below, files in os.walk(directory):
            below.sort()
            if EVALUATION in files:
                path = Path(folder)
                found[os.path.realpath(path)] = path
    evaluations = []
    for path in found.values():
        try:
            written = (path / EVALUATION).stat(follow_symlinks=False).st_mtime_ns
            read = parse_json(read_inside(path, path / EVALUATION, _MOST_BYTES))
            evaluation = _read(read, path)
            evaluations.append((evaluation.n_test, written, evaluation))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
            continue
    return [each for *_, each in sorted(evaluations, key=lambda found: found[:2])]


def add_evaluations(
    runs: Sequence[RunRecord], evaluations: Sequence[FoundEvaluation]
) -> list[RunRecord]:
    """Put what evaluations measured beside the last test point's metrics of the runs they are of.

    An evaluation of another iteration than the last is left out; of several that measured the same,
    the one of the most test images counts, and of as many the latest.
    """
    by_run: dict[str, list[FoundEvaluation]] = {}
    for each in evaluations:
        by_run.setdefault(each.run, []).append(each)
    return [_with_all(run, by_run.get(os.path.realpath(run.path), [])) for run in runs]


def _with_all(run: RunRecord, evaluations: Sequence[FoundEvaluation]) -> RunRecord:
    final = [_with(line, evaluations) for line in run.final]
    completion = {
        seed: measured
        for each in evaluations
        if run.final and each.iteration == run.final[0]["iteration"]
        for seed, measured in each.completion.items()
    }
    return dataclasses.replace(run, final=final, completion=completion)


def _with(line: MetricsLine, evaluations: Sequence[FoundEvaluation]) -> MetricsLine:
    measured: MetricsLine = {}
    for each in evaluations:
        if each.iteration == line["iteration"]:
            measured |= each.by_seed.get(int(line["seed"] or 0), {})
    return line | {name: value for name, value in measured.items() if name not in line}


def _read(evaluation: Any, path: Path) -> FoundEvaluation:
    """Check what an evaluation's file holds.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, OverflowError: if it is not as evaluations
            are written.
    """
    seeds = evaluation.get("seeds", [evaluation])
    if len(seeds) > _MOST_SEEDS:
        raise ValueError("too many seeds")
    by_seed = {
        int(each["seed"]): {
            name: each[name]
            for name in METRICS
            if is_number(each.get(name)) and _is_small(each[name])
        }
        for each in seeds
    }
    run = os.path.realpath(os.path.join(path, str(evaluation["run"])))
    completion = {int(each["seed"]): found for each in seeds if (found := _completion_of(each))}
    n_test = int(evaluation.get("test_examples", 0))
    return FoundEvaluation(run, int(evaluation["iteration"]), n_test, by_seed, completion)


def _completion_of(seed: dict[str, Any]) -> dict[str, list[CompletionRow]]:
    """Read a seed's completion; nothing where it was not measured."""
    found = seed.get("diagnostics", {}).get("completion")
    if found is None:
        return {}
    hidden = found["hidden"]
    if len(hidden) > _MOST_FRACTIONS or not all(
        is_number(each) and 0 <= each <= 1 for each in hidden
    ):
        raise ValueError("these are no fractions")
    return {
        part: [
            {"hidden": float(fraction)} | {name: _number(row.get(name)) for name in _COMPLETION}
            for fraction, row in zip(hidden, found[part], strict=True)
        ]
        for part in HIDDEN_PARTS
        if part in found
    }


def _number(value: object) -> float | None:
    return float(value) if is_number(value) and _is_small(value) else None


def _is_small(number: float) -> bool:
    return math.isfinite(number) and abs(number) < _LARGEST
