"""Run directories as they are read back, by `bpc-report` or a notebook: no JAX is needed.

What is read may come from a stranger: nothing in it is executed, links are not followed, and what
is not as a run writes it is told, not believed.
"""

import dataclasses
import fcntl
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import MISSING

from bpc_cli.options.declare import option_fields
from bpc_cli.options.schema import TrainConfig

METRICS = "metrics.jsonl"
SUMMARY = "summary.json"
LOCK = ".lock"
_CONFIG = Path(".hydra") / "config.yaml"
_LARGEST_FILE = 512 * 2**20
_SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """What a run directory says of its run.

    Attributes:
        path: the directory.
        status: finished, interrupted, diverged, failed, running, unfinished or unreadable.
        reason: why it is not finished, where that is known.
        settings: every option by its dotted path; lists and dictionaries as JSON.
        data_set: the data set really used; None before it is known.
        lines: metrics lines, a line per iteration and seed.
        final: the last test point's lines, a line per seed.
        samples: sample grids, oldest first.
        versions: software and device.
    """

    path: Path
    status: str
    reason: str | None
    settings: dict[str, Any]
    data_set: str | None
    lines: list[dict[str, Any]]
    final: list[dict[str, Any]]
    samples: list[Path]
    versions: dict[str, str]

    @property
    def seeds(self) -> list[int]:
        """The seeds of the last test point's lines."""
        return [line["seed"] for line in self.final]


def find_runs(directories: Iterable[Path]) -> list[Path]:
    """List the run directories at or below directories, each once, in a natural order."""
    found: dict[str, Path] = {}
    for directory in directories:
        for folder, subfolders, files in os.walk(directory, followlinks=False):
            is_run = METRICS in files or SUMMARY in files
            if is_run and os.path.exists(os.path.join(folder, _CONFIG)):
                found.setdefault(os.path.realpath(folder), Path(folder))
                subfolders.clear()
            subfolders.sort(key=_natural)
    return list(found.values())


def read_run(path: Path) -> RunRecord:
    """Read one run directory; what cannot be read makes its status "unreadable"."""
    try:
        return _read(path)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:300]
        return RunRecord(path, "unreadable", reason, {}, None, [], [], [], {})
    except RecursionError:
        return RunRecord(path, "unreadable", "nested too deeply", {}, None, [], [], [], {})


def _read(path: Path) -> RunRecord:
    settings = dict(_flatten(yaml.load(_text_of(path, _CONFIG), Loader=_SAFE_LOADER)))
    for option, field in option_fields(TrainConfig):
        if field.metadata["before"] != MISSING:
            settings.setdefault(option, field.metadata["before"])
    first_seed = int(settings.get("seed", 0))
    summary = json.loads(_text_of(path, SUMMARY)) if (path / SUMMARY).exists() else None
    lines = []
    if (path / METRICS).exists():
        for text in _text_of(path, METRICS).splitlines(keepends=True):
            if text.endswith("\n"):  # else it is just being written
                lines.append({"seed": first_seed} | _checked_line(json.loads(text)))
    tested = [line for line in lines if line.get("test_accuracy") is not None]
    final = [line for line in tested if line["iteration"] == tested[-1]["iteration"]]
    status, reason = _status_of(path, summary)
    samples = sorted((path / "samples").glob("iteration_*.png"))
    return RunRecord(
        path=path,
        status=status,
        reason=reason,
        settings=settings,
        data_set=None if summary is None else _text(summary.get("data", {}).get("name")),
        lines=lines,
        final=final,
        samples=[sample for sample in samples if not sample.is_symlink()],
        versions=_versions_of(summary or {}),
    )


def _status_of(path: Path, summary: Mapping[str, Any] | None) -> tuple[str, str | None]:
    if summary is not None:
        return str(summary["status"]), _text(summary.get("reason"))
    if _is_locked(path / LOCK):
        return "running", None
    return "unfinished", "ended without a summary, as by a kill; the same command goes on with it"


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
    """Read a file of a run, unless a link leads out of the run or it is not one to be read."""
    file = path / name
    if not os.path.realpath(file).startswith(os.path.realpath(path) + os.sep):
        raise ValueError(f"{name} is a link that leads out of the run directory")
    if not file.is_file():
        raise ValueError(f"{name} is missing")
    if file.stat().st_size > _LARGEST_FILE:
        raise ValueError(f"{name} is too large to be a run's")
    return file.read_text()


def _checked_line(line: Any) -> dict[str, Any]:
    """Check that a metrics line holds nothing but numbers under names."""
    if not isinstance(line, dict) or not isinstance(line.get("iteration"), int):
        raise ValueError(f"{METRICS} has a line that is not a run's")
    for value in line.values():
        if value is not None and not isinstance(value, int | float):
            raise ValueError(f"{METRICS} has a line that is not a run's")
    return line


def _flatten(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(tree, dict):
        raise ValueError(f"{_CONFIG} is not a config")
    for name, value in tree.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict) and not path.endswith("_args"):
            yield from _flatten(value, f"{path}.")
        elif isinstance(value, dict | list):
            yield path, json.dumps(value, sort_keys=True, default=str)
        else:
            yield path, _number_if_one(value)


def _number_if_one(value: Any) -> Any:
    """Make 1e-3 a number, which YAML 1.1 takes for text."""
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return value
        return number if math.isfinite(number) else value
    return value


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _natural(name: str) -> tuple[int, int, str]:
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)
