"""What a run leaves on disk: its log, its metrics lines, its summary."""

import json
import logging
import math
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bpc_cli.checkpoint import write_atomically
from bpc_cli.errors import UserError

METRICS = "metrics.jsonl"
SUMMARY = "summary.json"


def refuse_taken(path: Path) -> None:
    """Refuse a directory that already holds a run.

    Raises:
        UserError: if it does, saying whether that run is finished.
    """
    if (path / METRICS).exists():
        state = "a finished" if _is_finished(path) else "an unfinished"
        raise UserError(
            f"{path} already holds {state} run: choose another hydra.run.dir, or remove it"
        )


class RunDirectory:
    """A run's directory, claimed by making its metrics file.

    Args:
        path: the directory, made if missing.
        log_name: the log's file name in it.

    Raises:
        UserError: if the directory already holds a run.
    """

    def __init__(self, path: Path, log_name: str):
        path.mkdir(parents=True, exist_ok=True)
        try:
            self._metrics = (path / METRICS).open("x")
        except FileExistsError as error:
            refuse_taken(path)
            raise UserError(f"{path} has just been taken by another run") from error
        self.path = path
        self.samples = path / "samples"
        self.checkpoints = path / "checkpoints"
        self.samples.mkdir(exist_ok=True)
        self.checkpoints.mkdir(exist_ok=True)
        self._logger = _make_logger(path / log_name)

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(self, *_: object) -> None:
        self._metrics.close()
        for handler in list(self._logger.handlers):
            self._logger.removeHandler(handler)
            handler.close()

    def say(self, line: str) -> None:
        """Write a line to the console and to the log."""
        self._logger.info(line)

    def warn(self, line: str) -> None:
        """Write a warning to the console and to the log."""
        self._logger.warning("WARNING: %s", line)

    def log_metrics(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Append objects to the metrics file, a line each; NaN and infinity become null."""
        for line in lines:
            self._metrics.write(json.dumps(finite_or_null(line), allow_nan=False) + "\n")
        self._metrics.flush()

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write the run's summary, replacing an earlier one."""
        write_json(self.path / SUMMARY, summary)

    def read_metrics(self) -> list[dict[str, Any]]:
        """Read back every line of the metrics file."""
        return [json.loads(line) for line in (self.path / METRICS).read_text().splitlines()]


class _ConsoleHandler(logging.Handler):
    """Plain lines on standard output, above a progress bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stdout)
        sys.stdout.flush()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write an object as indented JSON at once; numbers that are not finite become null."""
    encoded = json.dumps(finite_or_null(content), indent=2, allow_nan=False) + "\n"
    write_atomically(path, encoded.encode())


def finite_or_null(value: Any) -> Any:
    """Replace NaN and infinities by None, all the way down, as JSON has no such numbers."""
    if isinstance(value, Mapping):
        return {key: finite_or_null(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_null(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def git_commit(directory: Path) -> str | None:
    """Name the commit of the checkout that tracks a directory, "-dirty" if changed since.

    None where no git repository tracks the directory: an installed package is not the
    repository's that happens to lie around it.
    """
    if _git(directory, "ls-files", ".") in (None, ""):
        return None
    return _git(directory, "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*")


def _git(directory: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(directory), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _make_logger(path: Path) -> logging.Logger:
    logger = logging.getLogger(f"bpc.{path}")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    console = _ConsoleHandler()
    file = logging.FileHandler(path)
    file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.handlers = [console, file]
    return logger


def _is_finished(path: Path) -> bool:
    try:
        return json.loads((path / SUMMARY).read_text()).get("status") == "finished"
    except (OSError, ValueError, AttributeError):
        return False
