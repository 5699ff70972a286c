"""Read run directories back, for `bpc-report` or a notebook; no JAX is needed.

A run may come from a stranger: nothing in it is executed, no link is followed out of it, and a run
whose files are not as runs write them is reported as unreadable. Whatever is in its directory, it
is read in bounded time and memory.
"""

import dataclasses
import fcntl
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from bpc_cli.errors import one_line
from bpc_cli.evaluation.metrics import TEST_METRICS
from bpc_cli.evaluation.statistics import MetricsLine, whole
from bpc_cli.files import check_inside, open_inside, parse_json, read_inside
from bpc_cli.options.check import take_over_former_names
from bpc_cli.options.declare import flatten_options, option_fields
from bpc_cli.options.schema import TrainConfig
from bpc_cli.reporting.metrics_lines import is_number, last_test, read_metrics_lines
from bpc_cli.reporting.plain_yaml import read_plain_yaml
from bpc_cli.reporting.text import path_in_words, printable, shortened
from bpc_cli.runs.directory import CONFIG, LOCK, OVERRIDES, SUMMARY

_MOST_BYTES = 2**20  # of a config or a summary
_LARGEST_WHOLE_NUMBER = 2**64
_LONGEST_REASON = 500
_LONGEST_WORD = 100
_MOST_VERSIONS = 50
_MOST_SIGNS = 50
_MOST_OVERRIDES = 1000

OptionValue = str | int | float | bool | None
CompletionRow = dict[str, float | None]  # "hidden", and numbers of the diagnostic `completion`


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """One run, as its directory records it.

    Attributes:
        path: the directory.
        status: finished, interrupted, diverged, failed, running, unfinished or unreadable.
        reason: why it is not finished, where that is known.
        health: signs of bad health that its training showed, a line each.
        options: every option by its dotted path; lists and dictionaries as JSON.
        data_set: the data set really used; None before it is known.
        lines: metrics lines, a line per iteration and seed.
        final: the last test point's lines, a line per seed.
        samples: sample grids, oldest first.
        versions: software and device.
        overrides: what was given on its command line.
        commit: the git commit that it was made with.
        ended: when it ended, as a date and time of UTC.
        completion: for each seed, what an evaluation measured of completion, by hidden part: a row
            for each fraction of pixels hidden.
    """

    path: Path
    status: str
    reason: str | None = None
    health: list[str] = dataclasses.field(default_factory=list)
    options: dict[str, OptionValue] = dataclasses.field(default_factory=dict)
    data_set: str | None = None
    lines: list[MetricsLine] = dataclasses.field(default_factory=list)
    final: list[MetricsLine] = dataclasses.field(default_factory=list)
    samples: list[Path] = dataclasses.field(default_factory=list)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    overrides: list[str] = dataclasses.field(default_factory=list)
    commit: str | None = None
    ended: str | None = None
    completion: dict[int, dict[str, list[CompletionRow]]] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its path as text that can be shown and encoded."""
        return path_in_words(self.path)

    @property
    def is_finished(self) -> bool:
        """Whether it ended as planned, with a test."""
        return self.status == "finished" and bool(self.final)

    @property
    def seeds(self) -> list[int]:
        """The seeds of the last test point's lines."""
        return [whole(line, "seed") for line in self.final]


def read_run(path: Path) -> RunRecord:
    """Read one run directory; whatever is wrong in it makes its status "unreadable"."""
    try:
        return _read(path)
    except (OSError, ValueError) as error:
        reason = one_line(error)
    except Exception as error:  # nothing in one directory may end a report on others
        reason = f"it is not as runs write it ({type(error).__name__}: {one_line(error)})"
    return RunRecord(path, "unreadable", shortened(printable(reason), _LONGEST_REASON))


def _read(path: Path) -> RunRecord:
    options = _options_of(path)
    summary = _summary_of(path)
    lines = read_metrics_lines(path, _first_seed(options))
    status, reason = _status_of(path, summary)
    return RunRecord(
        path=path,
        status=status,
        reason=reason,
        health=_health_of(summary),
        options=options,
        data_set=_data_set_of(summary),
        lines=lines,
        final=last_test(lines, tuple(metric.name for metric in TEST_METRICS)),
        samples=_samples_of(path),
        versions=_versions_of(summary),
        overrides=_overrides_of(path),
        commit=_word_of(summary, "git_commit"),
        ended=_word_of(summary, "ended"),
    )


def _options_of(path: Path) -> dict[str, OptionValue]:
    """Read a run's options by the names and values that they have today.

    This is where the names and values of earlier versions are translated; the rest of a report
    knows today's alone.
    """
    text = _text_of(path, CONFIG)
    try:
        saved = read_plain_yaml(text)
        if not isinstance(saved, dict):
            raise ValueError("it is not a config")
        take_over_former_names(saved, TrainConfig)
        values = dict(flatten_options(saved, TrainConfig))
        for option, field in option_fields(TrainConfig):
            if field.metadata["before"] != MISSING:
                values.setdefault(option, field.metadata["before"])
        return {option: _option_value(value) for option, value in values.items()}
    except TypeError as error:
        raise ValueError(f"{CONFIG}: {error} is not a group of options") from error
    except ValueError as error:
        raise ValueError(f"{CONFIG}: {error}") from error


def _first_seed(options: Mapping[str, OptionValue]) -> int:
    """Return the seed of metrics lines that name none."""
    seed = options.get("seed", 0)
    if not is_number(seed) or seed != int(seed):
        raise ValueError(f"{CONFIG}: seed is not a whole number")
    return int(seed)


def _summary_of(path: Path) -> dict[str, Any] | None:
    if not os.path.lexists(path / SUMMARY):
        return None
    text = _text_of(path, SUMMARY)
    try:
        summary = parse_json(text)
    except ValueError as error:
        raise ValueError(f"{SUMMARY} is not JSON ({one_line(error)})") from error
    if not isinstance(summary, dict):
        raise ValueError(f"{SUMMARY} is no object")
    return summary


def _samples_of(path: Path) -> list[Path]:
    """List a run's sample grids, links left out."""
    folder = check_inside(path, path / "samples")
    return [grid for grid in sorted(folder.glob("iteration_*.png")) if not grid.is_symlink()]


def _data_set_of(summary: Mapping[str, Any] | None) -> str | None:
    data = (summary or {}).get("data") or {}
    if not isinstance(data, dict):
        raise ValueError(f"{SUMMARY}: data is no object")
    name = data.get("name")
    return None if name is None else _text(name, "data.name", _LONGEST_WORD)


def _status_of(path: Path, summary: Mapping[str, Any] | None) -> tuple[str, str | None]:
    if summary is not None:
        reason = summary.get("reason")
        return (
            _text(summary.get("status"), "status", _LONGEST_WORD),
            None if reason is None else _text(reason, "reason", _LONGEST_REASON),
        )
    if _is_locked(path):
        return "running", None
    return "unfinished", "ended without a summary, as after a kill; the same command resumes it"


def _health_of(summary: Mapping[str, Any] | None) -> list[str]:
    signs = (summary or {}).get("health") or []
    if not isinstance(signs, list) or not all(isinstance(sign, dict) for sign in signs):
        raise ValueError(f"{SUMMARY}: health is no list of objects")
    if len(signs) > _MOST_SIGNS:
        raise ValueError(f"{SUMMARY}: health has more than {_MOST_SIGNS} signs")
    return [_text(sign.get("line"), "health", _LONGEST_REASON) for sign in signs]


def _is_locked(path: Path) -> bool:
    try:
        descriptor = open_inside(path, path / LOCK)
    except (FileNotFoundError, PermissionError):
        return False
    with os.fdopen(descriptor, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # there are no locks on this file system
            return False
    return False


def _versions_of(summary: Mapping[str, Any] | None) -> dict[str, str]:
    versions = (summary or {}).get("versions") or {}
    if not isinstance(versions, dict) or len(versions) > _MOST_VERSIONS:
        raise ValueError(f"{SUMMARY}: versions are not those of software")
    named = versions | ({"device": summary["device"]} if summary and summary.get("device") else {})
    return {
        _text(name, "versions", _LONGEST_WORD): _text(version, "versions", _LONGEST_WORD)
        for name, version in named.items()
    }


def _word_of(summary: Mapping[str, Any] | None, name: str) -> str | None:
    word = (summary or {}).get(name)
    return None if word is None else _text(word, name, _LONGEST_WORD)


def _overrides_of(path: Path) -> list[str]:
    if not os.path.lexists(path / OVERRIDES):
        return []
    try:
        overrides = read_plain_yaml(_text_of(path, OVERRIDES))
    except ValueError as error:
        raise ValueError(f"{OVERRIDES}: {error}") from error
    if not isinstance(overrides, list) or len(overrides) > _MOST_OVERRIDES:
        raise ValueError(f"{OVERRIDES} is no list of options")
    return [shortened(printable(str(override)), _LONGEST_REASON) for override in overrides]


def _text_of(path: Path, name: str | Path) -> str:
    """Read a text of a run.

    Raises:
        OSError: if it cannot be read, is not safe to open, or is too large.
        ValueError: if it is no text.
    """
    try:
        return read_inside(path, path / name, _MOST_BYTES).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8 text") from error


def _text(value: Any, name: str, most: int) -> str:
    """Check that a summary's value is text, and make it such that it can be shown."""
    if not isinstance(value, str):
        raise ValueError(f"{SUMMARY}: {name} is no text")
    return shortened(printable(value), most)


def _option_value(value: object) -> OptionValue:
    """Make 1e-3 a number, which YAML 1.1 takes for text, and text of what is not an option's."""
    if isinstance(value, dict | list):
        return json.dumps(value, sort_keys=True)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if abs(value) > _LARGEST_WHOLE_NUMBER:
            raise ValueError("it has a number that is too large for any option")
        return value
    try:
        number = float(str(value))
    except ValueError:
        return printable(str(value))
    return number if math.isfinite(number) else printable(str(value))
