"""What a sweep says of itself: what it will run, which job a line is of, how far it is, its end."""

import collections
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.utils import filter_overrides

from bpc_cli.cli.cluster.queues import printable
from bpc_cli.cli.cluster.requests import Request, has_finished
from bpc_cli.errors import cut_off
from bpc_cli.files import parse_json, read_inside
from bpc_cli.options.declare import option_fields
from bpc_cli.runs.directory import EVALUATION, SUMMARY, read_summary

_MOST_BYTES = 2**26
_LONGEST_LABEL = 60
_LONGEST_NUMBER = 6  # that is not rounded
_NARROWEST = 4  # of a column of swept values


class SweptJob(NamedTuple):
    """A job of a sweep.

    Attributes:
        label: what tells it from the other jobs, such as "α_f=0.1 seed=3".
        directory: where its output goes.
        was_finished: whether it had been finished before.
        written: when its summary had been written before, by its file's clock; None: never.
    """

    label: str
    directory: Path
    was_finished: bool
    written: int | None


class Sweep:
    """The jobs of a sweep, in the order of their numbers.

    Args:
        directory: the sweep's.
        overrides: of each job.
        directories: of each job.
        schema: the dataclass that a config must fit.
        searched: of a search, the options that are searched, whether jobs differ in them or not.
        n_to_come: how many jobs are not known yet.
    """

    def __init__(
        self,
        directory: Path,
        overrides: Sequence[Sequence[str]],
        directories: Sequence[Path],
        schema: type,
        searched: Sequence[str] = (),
        n_to_come: int = 0,
    ):
        self._directory = directory
        self._swept = swept_values(overrides, schema, searched)
        self._n_jobs = len(overrides) + n_to_come
        self._jobs = [
            SweptJob(
                " ".join(f"{name}={values[number]}" for name, values in self._swept.items()),
                where,
                has_finished(Request([*own], tuple(sorted(filter_overrides(own))), where)),
                _when_written(where),
            )
            for number, (own, where) in enumerate(zip(overrides, directories, strict=True))
        ]
        self._began = time.monotonic()
        self._n_reported = 0

    def announcement(self) -> str:
        """Say how many jobs there are, what is swept, and how much of it is finished."""
        swept = [
            f"{name}={cut_off(','.join(dict.fromkeys(values)), _LONGEST_LABEL)}"
            for name, values in self._swept.items()
        ]
        n_finished = sum(job.was_finished for job in self._jobs)
        return "".join(
            [
                f"{_how_many(len(self._jobs))} in {os.path.relpath(self._directory)}",
                f": {' × '.join(swept)}" if swept else "",
                f"; {n_finished} finished already" if n_finished else "",
            ]
        )

    @property
    def labels(self) -> list[str]:
        """What tells each job from the others; empty where nothing does."""
        return [job.label for job in self._jobs]

    def prefix(self, number: int) -> str:
        """Say in brackets what tells a job from the others, for each of its lines."""
        label = self._jobs[number].label
        return f"[{cut_off(label, _LONGEST_LABEL)}] " if label else ""

    def progress(self) -> str | None:
        """Say how many jobs have ended and how long the rest may take.

        None, if no other job has ended since the last time, or all have.
        """
        before = sum(job.was_finished for job in self._jobs)
        ended = sum(
            job.was_finished or _when_written(job.directory) != job.written for job in self._jobs
        )
        if ended in (before, self._n_reported, self._n_jobs):
            return None
        self._n_reported = ended
        left = (time.monotonic() - self._began) / (ended - before) * (self._n_jobs - ended)
        return f"{ended} of {self._n_jobs} jobs done, about {_in_words(left)} left"

    def table(self) -> str:
        """List each job with the values of what is swept, what it has reached and how it ended.

        It is as wide as the terminal, or 80 where there is none; swept values are cut off to fit.
        """
        results = list(zip(*(_result_in(job.directory) for job in self._jobs), strict=True))
        headings = [_heading(metric) for metric in _tabled()]
        swept = [["", name, *values] for name, values in self._swept.items()]
        numbers = [
            [*head, *cells]
            for head, cells in zip(headings, results, strict=False)
            if any(cell != "–" for cell in cells)
        ]
        if not numbers:  # then what the usual run has
            numbers = [[*head, *cells] for head, cells in zip(headings[:2], results, strict=False)]
        columns = [
            ["", "job", *map(str, range(len(self._jobs)))],
            *numbers,
            ["", "seconds", *results[-2]],
        ]
        status = ["", "status", *results[-1]]
        widths = [max(map(len, column)) for column in [*columns, status]]
        room = shutil.get_terminal_size((80, 24)).columns - sum(widths) - 2 * len(columns)
        widths_of_swept = narrowed([max(map(len, column)) for column in swept], room)
        cells = [
            _fitted(columns[0], widths[0], str.rjust),
            *(_fitted(*each, str.ljust) for each in zip(swept, widths_of_swept, strict=True)),
            *(_fitted(*each, str.rjust) for each in zip(columns[1:], widths[1:-1], strict=True)),
            status,
        ]
        return "\n".join("  ".join(row).rstrip() for row in zip(*cells, strict=True))


def narrowed(widths: Sequence[int], room: int) -> list[int]:
    """Narrow columns, the widest first, until they have room with two spaces before each."""
    narrow = list(widths)
    while narrow and sum(narrow) + 2 * len(narrow) > room and max(narrow) > _NARROWEST:
        narrow[narrow.index(max(narrow))] -= 1
    return narrow


def swept_values(
    overrides: Sequence[Sequence[str]], schema: type, searched: Sequence[str] = ()
) -> dict[str, list[str]]:
    """List what differs between jobs: the short name of each option, and every job's value of it.

    What is searched is listed in any case, its numbers rounded to four digits. An option's short
    name is the last part of its name, where no other option has the same.
    """
    values: dict[str, list[str]] = {}
    for word in (word for own in overrides for word in filter_overrides(own)):
        option, _, value = word.lstrip("+~").partition("=")
        values.setdefault(option, []).append(value)
    in_any_case = {option.lstrip("+~") for option in searched}
    swept = {
        option: [_rounded(value) for value in each] if option in in_any_case else each
        for option, each in values.items()
        if option in in_any_case or len(set(each)) > 1
    }
    fields = dict(option_fields(schema))
    shorts = {option: _short_name(option, fields) for option in fields.keys() | swept.keys()}
    counts = collections.Counter(shorts.values())
    return {
        shorts[option] if counts[shorts[option]] == 1 else option: each
        for option, each in swept.items()
    }


def _rounded(value: str) -> str:
    try:
        return f"{float(value):.4g}" if len(value) > _LONGEST_NUMBER else value
    except ValueError:
        return value


def _short_name(option: str, fields: dict[str, Any]) -> str:
    declared = fields[option].metadata["short"] if option in fields else ""
    return declared or option.rpartition(".")[2]


def _result_in(directory: Path) -> list[str]:
    """Read what a job has reached: its metrics, seconds and status, each as a cell of a table."""
    nothing = ["–"] * (len(_tabled()) + 1)
    try:
        if not (directory / SUMMARY).exists() and (directory / EVALUATION).exists():
            read = read_inside(directory, directory / EVALUATION, _MOST_BYTES)
            final, seconds, status = parse_json(read), None, "finished"
        else:
            summary = read_summary(directory)
            final, status = summary.get("final") or {}, str(summary["status"])
            seconds = (summary.get("seconds") or {}).get("total")
        metrics = [_number(final.get(metric.name), metric.decimals) for metric in _tabled()]
        return [*metrics, _number(seconds, 1), printable(cut_off(status, 12))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return [*nothing, "not finished" if directory.exists() else "not run"]


def _tabled() -> list[Any]:
    """List the metrics that a table of jobs may have: a test's, and an evaluation's."""
    from bpc_cli.evaluation.metrics import METRICS, OF_HALF_HIDDEN

    compared = [metric for metric in METRICS.values() if metric.compared and metric.better]
    return [
        metric for metric in compared if metric not in OF_HALF_HIDDEN
    ]  # too many for a terminal


def _heading(metric: Any) -> tuple[str, str]:
    """Name a metric in two lines, as its numbers are narrow."""
    first, _, last = metric.title.rpartition(" ")
    return first, f"{last} %" if metric.unit == "%" else last


def _fitted(column: Sequence[str], width: int, align: Callable[[str, int], str]) -> list[str]:
    return [align(cut_off(cell, width), width) for cell in column]


def _number(value: Any, decimals: int) -> str:
    return f"{value:.{decimals}f}" if isinstance(value, int | float) else "–"


def _when_written(directory: Path) -> int | None:
    try:
        return (directory / SUMMARY).stat(follow_symlinks=False).st_mtime_ns
    except OSError:
        return None


def _how_many(n_jobs: int) -> str:
    return f"{n_jobs} job{'' if n_jobs == 1 else 's'}"


def _in_words(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
