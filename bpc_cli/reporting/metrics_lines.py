"""A run's metrics lines, read in bounded time and memory, as a stranger may have written them."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

from bpc_cli.evaluation.statistics import MetricsLine, whole
from bpc_cli.files import open_inside
from bpc_cli.runs.directory import METRICS

_LARGEST_FILE = 512 * 2**20
_LONGEST_LINE = 2**16
_MOST_LINES = 2 * 10**6
_MOST_NUMBERS = 10**7
_NUMBERS = (int, float)
_LARGEST_NUMBER = 3.5e38  # that of float32, in which runs compute
_LARGEST_ITERATION = 10**12
_LARGEST_SEED = 2**32 + 10**6  # n_seeds counts on from the largest `seed`
_MOST_SEEDS = 10_000
_LONGEST_NAME = 100
_MOST_NAMES = 1_000


def read_metrics_lines(run: Path, first_seed: int) -> list[MetricsLine]:
    """Read a run's metrics lines; those of a version before `n_seeds` have this seed.

    Raises:
        OSError: if the file cannot be read, or is not safe to open.
        ValueError: naming the line, if one is not a run's, or there are more than a run writes.
    """
    path = run / METRICS
    if not os.path.lexists(path):
        return []
    lines: list[MetricsLine] = []
    names: dict[str, str] = {}  # each once in memory
    n_numbers = 0
    for text in _texts_of(run, path):
        try:
            line = _checked_line({"seed": first_seed} | _object_of(text), names)
        except ValueError as error:
            raise ValueError(f"{METRICS}, line {len(lines) + 1}: {error}") from error
        lines.append(line)
        n_numbers += len(line)
        if len(lines) > _MOST_LINES or n_numbers > _MOST_NUMBERS or len(names) > _MOST_NAMES:
            raise ValueError(f"{METRICS} has more numbers than a report can hold")
    return lines


def last_test(lines: list[MetricsLine], tested: tuple[str, ...]) -> list[MetricsLine]:
    """Choose the last test point's lines, a line per seed.

    Args:
        lines: metrics lines, oldest first.
        tested: the names of a test's metrics.

    Raises:
        ValueError: if there are more seeds than a run trains.
    """
    tests = [line for line in lines if any(line.get(name) is not None for name in tested)]
    by_seed = {
        whole(line, "seed"): line for line in tests if line["iteration"] == tests[-1]["iteration"]
    }
    if len(by_seed) > _MOST_SEEDS:
        raise ValueError(f"{METRICS} has more than {_MOST_SEEDS:,} seeds")
    return list(by_seed.values())


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether a value is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _texts_of(run: Path, path: Path) -> Iterator[bytes]:
    """Read a file line by line, but for a last one that is just being written."""
    with os.fdopen(open_inside(run, path), "rb") as file:
        if os.fstat(file.fileno()).st_size > _LARGEST_FILE:
            raise ValueError(f"{METRICS} is larger than {_LARGEST_FILE:,} bytes")
        while text := file.readline(_LONGEST_LINE):
            if text.endswith(b"\n"):
                yield text
            elif len(text) == _LONGEST_LINE:
                raise ValueError(f"{METRICS} has a line that is longer than a run's")


def _object_of(text: bytes) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError:
        raise ValueError("it is not JSON") from None
    if not isinstance(content, dict):
        raise ValueError("it is no object")
    return content


def _checked_line(line: dict[str, Any], names: dict[str, str]) -> MetricsLine:
    """Check that a metrics line holds what a run measures alone, and a whole iteration and seed."""
    checked: MetricsLine = {}
    for name, value in line.items():
        if name not in names:
            if len(name) > _LONGEST_NAME or not name.isprintable():
                raise ValueError("it has a name that no metric has")
            names[name] = name
        # By type, as true and false are no numbers, and as most of a report's time is spent here.
        is_measured = type(value) in _NUMBERS and -_LARGEST_NUMBER <= value <= _LARGEST_NUMBER
        if value is not None and not is_measured:
            raise ValueError(f"{name} is not a number that a run measures")
        checked[names[name]] = value
    for name, largest in (("iteration", _LARGEST_ITERATION), ("seed", _LARGEST_SEED)):
        value = line.get(name)
        if type(value) is not int or not 0 <= value <= largest:
            raise ValueError(f"{name} is not a whole number from 0 to {largest:,}")
    return checked
