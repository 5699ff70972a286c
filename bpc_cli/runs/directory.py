"""What a run leaves on disk, one process at a time: its log, its metrics lines, its summary."""

import contextlib
import functools
import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from tqdm import tqdm

from bpc_cli.errors import UserError, one_line
from bpc_cli.evaluation.statistics import MetricsLine
from bpc_cli.files import (
    JsonObject,
    check_inside,
    finite_or_null,
    locked,
    open_inside,
    parse_json,
    read_inside,
    write_atomically,
    write_json,
)
from bpc_cli.runs.metrics_lines import read_lines

METRICS = "metrics.jsonl"
EVALUATION = "metrics.json"  # what `bpc-eval` leaves in place of a summary
SUMMARY = "summary.json"
LOCK = ".lock"
CONFIG = Path(".hydra") / "config.yaml"
OVERRIDES = CONFIG.with_name("overrides.yaml")
_LOG = "train.log"

_MOST_SUMMARY_BYTES = 2**20

_OURS = (
    *(
        METRICS,
        SUMMARY,
        _LOG,
        LOCK,
        "curves.png",
        "curves.svg",
        "curves.pdf",
        "checkpoints",
        "samples",
        ".hydra",
    ),
    *("tensorboard", "wandb", "wandb_id", "mlflow_id"),
)


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Keep other processes out of a run directory, made if missing, for a `with` block.

    Raises:
        UserError: if another process is at work in it, naming that, or a link leads out of it.
        OSError: if it cannot be made or written.
    """

    def refuse(owner: str) -> NoReturn:
        raise UserError(
            f"{path} is in use by {owner}: wait for it, or choose another hydra.run.dir"
        )

    refuse_links_out(path)
    with locked(path / LOCK, refuse):
        yield


def refuse_links_out(path: Path) -> None:
    """Refuse a run directory with a link that leads out of it, as one from a stranger may have.

    Neither may a pipe be in it, which whoever opens it would wait for.

    Raises:
        UserError: naming the link, or what else it is.
    """
    ours = [path / name for name in _OURS]
    for entry in ours + [child for folder in ours for child in folder.glob("*")]:
        try:
            check_inside(path, entry)
        except OSError as error:
            raise UserError(f"{one_line(error)}: remove it") from error


def is_finished(path: Path) -> bool:
    """Tell whether a directory holds a run that ended as planned."""
    try:
        return read_summary(path).get("status") == "finished"
    except (OSError, ValueError, AttributeError):
        return False


def read_summary(path: Path) -> Any:
    """Read the summary in a run directory, whatever JSON it holds.

    Raises:
        OSError: if there is none, or it is too large or not safe to open.
        ValueError: if it is no JSON.
    """
    return parse_json(read_inside(path, path / SUMMARY, _MOST_SUMMARY_BYTES))


class RunDirectory:
    """A run's directory, open for writing; its caller has claimed it.

    Args:
        path: the directory.
        earlier_metrics: the file whose first lines are the run's own so far.
        earlier_bytes: how much of it; the rest is cut off.
        prefix: what its lines on the console begin with.

    Raises:
        OSError: if it cannot be written.
    """

    def __init__(
        self,
        path: Path,
        earlier_metrics: Path | None = None,
        earlier_bytes: int = 0,
        prefix: str = "",
    ):
        self.path = path
        self.samples = path / "samples"
        self.checkpoints = path / "checkpoints"
        self.samples.mkdir(exist_ok=True)
        self.checkpoints.mkdir(exist_ok=True)
        for folder in (path, self.samples, self.checkpoints):
            for unfinished in folder.glob(".*.????????.tmp"):  # of a process that was killed
                unfinished.unlink()
        (path / SUMMARY).unlink(missing_ok=True)
        earlier = b""
        if earlier_metrics is not None:
            with os.fdopen(open_inside(earlier_metrics.parent, earlier_metrics), "rb") as file:
                earlier = file.read(earlier_bytes)
            if earlier_metrics != path / METRICS:
                write_atomically(path / METRICS, earlier)
        appending = os.O_RDWR | os.O_APPEND | os.O_CREAT
        self._metrics = os.fdopen(open_inside(path, path / METRICS, appending), "ab", buffering=0)
        self._metrics.truncate(len(earlier))
        self._digest = hashlib.sha256(earlier)
        self._logger = _make_logger(path / _LOG, prefix)

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(self, *_: object) -> None:
        self._metrics.close()
        for handler in list(self._logger.handlers):
            self._logger.removeHandler(handler)
            with contextlib.suppress(OSError):
                handler.close()

    def report(self, line: str) -> None:
        """Write a line to the console and to the log."""
        self._logger.info(line)

    def warn(self, line: str) -> None:
        """Write a warning to the console and to the log."""
        self._logger.warning("WARNING: %s", line)

    def log_metrics(self, lines: Iterable[MetricsLine]) -> None:
        """Append objects to the metrics file, a line each; NaN and infinity become null.

        Raises:
            OSError: if they cannot be written; the file is then as it was.
        """
        encoded = "".join(
            json.dumps(finite_or_null(line), allow_nan=False) + "\n" for line in lines
        ).encode()
        before, rest = os.fstat(self._metrics.fileno()).st_size, memoryview(encoded)
        try:
            while rest:
                rest = rest[self._metrics.write(rest) :]
        except OSError as error:
            self._metrics.truncate(before)
            error.filename = str(self.path / METRICS)
            raise
        self._digest.update(encoded)

    def sync_metrics(self) -> JsonObject:
        """Make the metrics lines so far last through a power cut.

        Returns:
            Their number of bytes and SHA-256, by which a checkpoint's header knows them again.
        """
        os.fsync(self._metrics.fileno())
        return {
            "metrics_bytes": os.fstat(self._metrics.fileno()).st_size,
            "metrics_sha256": self._digest.hexdigest(),
        }

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write the run's summary, replacing an earlier one."""
        write_json(self.path / SUMMARY, summary)

    def read_metrics(self) -> list[MetricsLine]:
        """Read back every line of the metrics file.

        Raises:
            UserError: if one is not a line of metrics.
        """
        path = self.path / METRICS
        try:
            return read_lines(path)
        except ValueError as error:
            raise UserError(f"{path} is damaged: choose another hydra.run.dir") from error


class _ConsoleHandler(logging.Handler):
    """Plain lines on standard output, above a progress bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stdout)
        sys.stdout.flush()


class _LogFile(logging.FileHandler):
    """A log that a full disk leaves incomplete, without a traceback for each line."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


@functools.cache
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


def _make_logger(path: Path, prefix: str) -> logging.Logger:
    logger = logging.getLogger(f"bpc.{path}")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    console = _ConsoleHandler()
    console.setFormatter(logging.Formatter(f"{prefix.replace('%', '%%')}%(message)s"))
    file = _LogFile(path, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.handlers = [console, file]
    return logger
