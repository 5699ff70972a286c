"""Lines of `metrics.jsonl` read back, of which none is believed."""

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path

from bpc_cli.evaluation.metrics import TEST_METRICS
from bpc_cli.evaluation.statistics import MetricsLine
from bpc_cli.files import parse_json
from bpc_cli.runs.checkpoints.header import is_count

_LONGEST_LINE = 2**16
_LARGEST = 1e300  # means of several numbers stay finite
_NULL_WITHOUT_A_TEST = {metric.name for metric in TEST_METRICS}


def read_lines(path: Path) -> list[MetricsLine]:
    """Read every line of a file of metrics.

    Raises:
        ValueError: if one is not a line of metrics.
    """
    return [line for _, line in _lines_of(path)]


def what_is_wrong(path: Path, n_bytes: int, digest: str | None) -> str | None:
    """Say what is wrong with the lines that a file of metrics held when a checkpoint was saved.

    Args:
        path: the file.
        n_bytes: how many bytes it had then.
        digest: their SHA-256; None where the checkpoint is older than that.

    Returns:
        What the file did since, such as "lacks lines"; None if all of them are there, unchanged.
    """
    if not path.is_file() or path.stat().st_size < n_bytes:
        return "lacks lines"
    found = hashlib.sha256()
    try:
        for encoded, line in _lines_of(path, n_bytes):
            if any(line[name] is None for name in line.keys() - _NULL_WITHOUT_A_TEST):
                return "is damaged in lines"
            found.update(encoded)
    except ValueError:
        return "is damaged in lines"
    return "is damaged in lines" if digest not in (None, found.hexdigest()) else None


def _lines_of(path: Path, n_bytes: float = math.inf) -> Iterator[tuple[bytes, MetricsLine]]:
    """Read the lines of a file's first bytes one by one, as bytes and as what they say."""
    before: MetricsLine = {}
    with path.open("rb") as file:
        while file.tell() < n_bytes and (encoded := file.readline(_LONGEST_LINE)):
            line = parse_json(encoded)
            if not encoded.endswith(b"\n") or file.tell() > n_bytes or not _is_line(line):
                raise ValueError("no line of metrics")
            if line["iteration"] == before.get("iteration") and line.keys() != before.keys():
                raise ValueError("seeds with other metrics")
            before = line
            yield encoded, line


def _is_line(line: object) -> bool:
    return (
        isinstance(line, dict)
        and is_count(line.get("iteration"), 1)
        and is_count(line.get("seed"))
        and any(name in line for name in _NULL_WITHOUT_A_TEST)
        and all(value is None or _is_number(value) for value in line.values())
    )


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and -_LARGEST < value < _LARGEST  # pyright: ignore
