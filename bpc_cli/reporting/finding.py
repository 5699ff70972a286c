"""Find run directories."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from bpc_cli.runs.directory import CONFIG, METRICS, SUMMARY

EVALUATIONS = "evaluations"  # the folder of a sweep that holds its runs' evaluations


def find_runs(directories: Iterable[Path]) -> list[Path]:
    """List the run directories at or below directories, each once, in a natural order."""
    found: dict[str, Path] = {}
    for directory in directories:
        for run in _runs_below(directory):
            found.setdefault(os.path.realpath(run), run)
    return list(found.values())


def _runs_below(directory: Path) -> Iterator[Path]:
    """Walk through folders, by a list as they may be nested more deeply than calls can be."""
    waiting = [str(directory)]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                kinds = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
        except OSError:  # may not be read, or has gone
            continue
        is_evaluation = METRICS not in kinds and Path(folder).parent.name == EVALUATIONS
        if CONFIG.parts[0] in kinds and (METRICS in kinds or SUMMARY in kinds):
            if not is_evaluation:
                yield Path(folder)
        else:
            below = [name for name in kinds if kinds[name]]
            below.sort(key=_natural, reverse=True)
            waiting += [os.path.join(folder, name) for name in below]


def _natural(name: str) -> tuple[int, int, str]:
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)
