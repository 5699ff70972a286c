"""What a run leaves, as tests compare it."""

import json
from pathlib import Path


def lines_of(run: Path) -> list[dict]:
    """Read a run's metrics lines, but for the clock."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{**line, "seconds": None} for line in lines]


def summary_of(run: Path) -> dict:
    """Read a run's summary."""
    return json.loads((run / "summary.json").read_text())


def status_of(run: Path) -> str:
    """Read how a run ended."""
    return summary_of(run)["status"]
