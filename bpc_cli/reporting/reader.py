"""Read run directories back, for `bpc-report` or a notebook; no JAX is needed.

A run may come from a stranger: nothing in it is executed, links are not followed, and a run whose
files are not as runs write them is reported as unreadable.
"""

import dataclasses
import fcntl
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeGuard

import yaml
from omegaconf import MISSING

from bpc_cli.evaluation.metrics import TEST_METRICS
from bpc_cli.evaluation.statistics import MetricsLine, whole
from bpc_cli.options.check import take_over_former_names
from bpc_cli.options.declare import flatten_options, option_fields
from bpc_cli.options.schema import TrainConfig
from bpc_cli.runs.directory import CONFIG, LOCK, METRICS, SUMMARY

_LARGEST_FILE = 512 * 2**20
_SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NOT_A_RUN = (ValueError, TypeError, KeyError, AttributeError, OverflowError)

OptionValue = str | int | float | bool | None


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """One run, as its directory records it.

    Attributes:
        path: the directory.
        status: finished, interrupted, diverged, failed, running, unfinished or unreadable.
        reason: why it is not finished, where that is known.
        options: every option by its dotted path; lists and dictionaries as JSON.
        data_set: the data set really used; None before it is known.
        lines: metrics lines, a line per iteration and seed.
        final: the last test point's lines, a line per seed.
        samples: sample grids, oldest first.
        versions: software and device.
    """

    path: Path
    status: str
    reason: str | None = None
    options: dict[str, OptionValue] = dataclasses.field(default_factory=dict)
    data_set: str | None = None
    lines: list[MetricsLine] = dataclasses.field(default_factory=list)
    final: list[MetricsLine] = dataclasses.field(default_factory=list)
    samples: list[Path] = dataclasses.field(default_factory=list)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def is_finished(self) -> bool:
        """Whether it ended as planned, with a test."""
        return self.status == "finished" and bool(self.final)

    @property
    def seeds(self) -> list[int]:
        """The seeds of the last test point's lines."""
        return [whole(line, "seed") for line in self.final]


def find_runs(directories: Iterable[Path]) -> list[Path]:
    """List the run directories at or below directories, each once, in a natural order."""
    found: dict[str, Path] = {}
    for directory in directories:
        for folder, subfolders, files in os.walk(directory, followlinks=False):
            is_run = METRICS in files or SUMMARY in files
            if is_run and os.path.exists(os.path.join(folder, CONFIG)):
                found.setdefault(os.path.realpath(folder), Path(folder))
                subfolders.clear()
            subfolders.sort(key=_natural)
    return list(found.values())


def read_run(path: Path) -> RunRecord:
    """Read one run directory; what cannot be read makes its status "unreadable"."""
    try:
        return _read(path)
    except (OSError, yaml.YAMLError, *_NOT_A_RUN) as error:
        return RunRecord(path, "unreadable", " ".join(str(error).split())[:300])
    except RecursionError:
        return RunRecord(path, "unreadable", "nested too deeply")


def _read(path: Path) -> RunRecord:
    options = _options_of(path)
    summary = json.loads(_text_of(path, SUMMARY)) if (path / SUMMARY).exists() else None
    lines = _lines_of(path, first_seed=int(options.get("seed") or 0))
    tests = [line for line in lines if any(line.get(m.name) is not None for m in TEST_METRICS)]
    status, reason = _status_of(path, summary)
    samples = sorted((path / "samples").glob("iteration_*.png"))
    return RunRecord(
        path=path,
        status=status,
        reason=reason,
        options=options,
        data_set=None if summary is None else _text(summary.get("data", {}).get("name")),
        lines=lines,
        final=[line for line in tests if line["iteration"] == tests[-1]["iteration"]],
        samples=[sample for sample in samples if not sample.is_symlink()],
        versions=_versions_of(summary or {}),
    )


def _options_of(path: Path) -> dict[str, OptionValue]:
    """Read a run's options by the names and values that they have today.

    This is where the names and values of earlier versions are translated; the rest of a report
    knows today's alone.
    """
    saved = yaml.load(_text_of(path, CONFIG), Loader=_SAFE_LOADER)
    if not isinstance(saved, dict):
        raise ValueError(f"{CONFIG} is not a config")
    take_over_former_names(saved, TrainConfig)
    values = dict(flatten_options(saved, TrainConfig))
    for option, field in option_fields(TrainConfig):
        if field.metadata["before"] != MISSING:
            values.setdefault(option, field.metadata["before"])
    return {option: _option_value(value) for option, value in values.items()}


def _lines_of(path: Path, first_seed: int) -> list[MetricsLine]:
    """Read a run's metrics lines; those of a version before `n_seeds` name no seed."""
    if not (path / METRICS).exists():
        return []
    return [
        _checked_line({"seed": first_seed} | json.loads(text))
        for text in _text_of(path, METRICS).splitlines(keepends=True)
        if text.endswith("\n")  # else it is just being written
    ]


def _status_of(path: Path, summary: Mapping[str, Any] | None) -> tuple[str, str | None]:
    if summary is not None:
        return str(summary["status"]), _text(summary.get("reason"))
    if _is_locked(path / LOCK):
        return "running", None
    return "unfinished", "ended without a summary, as after a kill; the same command resumes it"


def _is_locked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _versions_of(summary: Mapping[str, Any]) -> dict[str, str]:
    versions = {str(k): str(v) for k, v in dict(summary.get("versions") or {}).items()}
    if summary.get("device"):
        versions["device"] = str(summary["device"])
    return versions


def _text_of(path: Path, name: str | Path) -> str:
    """Read a file of a run.

    Raises:
        ValueError: if a link leads out of the run, or it is no file or one too large.
    """
    file = path / name
    if not os.path.realpath(file).startswith(os.path.realpath(path) + os.sep):
        raise ValueError(f"{name} is a link that leads out of the run directory")
    if not file.is_file():
        raise ValueError(f"{name} is missing")
    if file.stat().st_size > _LARGEST_FILE:
        raise ValueError(f"{name} is too large to be a run's")
    return file.read_text()


def _checked_line(line: dict[str, object]) -> MetricsLine:
    """Check that a metrics line holds finite numbers alone, and a whole iteration and seed."""
    numbers = {name: value for name, value in line.items() if value is None or is_number(value)}
    are_finite = all(value is None or math.isfinite(value) for value in numbers.values())
    are_whole = all(type(line.get(name)) is int for name in ("iteration", "seed"))
    if len(numbers) < len(line) or not are_finite or not are_whole:
        raise ValueError(f"{METRICS} has a line that is not a run's")
    return numbers


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether a value is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _option_value(value: object) -> OptionValue:
    """Make 1e-3 a number, which YAML 1.1 takes for text, and text of what is not an option's."""
    if isinstance(value, dict | list):
        return json.dumps(value, sort_keys=True, default=str)
    if value is None or isinstance(value, bool):
        return value
    try:
        number = float(str(value))
    except ValueError:
        return str(value)
    if not math.isfinite(number):
        return str(value)
    return value if isinstance(value, int) else number


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _natural(name: str) -> tuple[int, int, str]:
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)
