"""`bpc-eval SWEEP`: a sweep's directory in place of a run's stands for all of its runs."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from bpc_cli.files import expanded
from bpc_cli.reporting.finding import EVALUATIONS, find_runs

_OPTION = "checkpoint"


def spread_over_runs(words: Sequence[str]) -> list[str]:
    """Make of a command line whose checkpoint is a directory of runs one that sweeps over them.

    Their evaluations go to a folder of that directory, unless another is asked for. Whatever is
    anything else stays as it is.
    """
    changed = list(words)
    for number, word in enumerate(words):
        match = re.fullmatch(rf"{_OPTION}=(?:'(.*)'|(.*))", word, re.DOTALL)
        if match is None:
            continue
        given = match[1].replace("\\'", "'") if match[1] is not None else match[2]
        runs = _runs_in(given)
        if not runs:
            return changed
        changed[number] = f"{_OPTION}={','.join(map(quoted, runs))}"
        if not any(word.lstrip("+").startswith("hydra.sweep.dir=") for word in words):
            changed.append(f"hydra.sweep.dir={quoted(os.path.join(given, EVALUATIONS))}")
        if not {"-m", "--multirun"} & set(words):
            changed.insert(0, "-m")
        return changed
    return changed


def quoted(value: str) -> str:
    """Quote a value for Hydra, where it has more in it than plain words.

    In its quotes a backslash is itself, unless a quote follows.
    """
    if re.fullmatch(r"[A-Za-z_./][\w./-]*", value, re.ASCII):
        return value
    escaped = re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + m[2].replace("'", "\\'"), value)
    return f"'{escaped}'"


def _runs_in(given: str) -> list[str]:
    """List the runs below a directory that is not one itself."""
    try:
        directory = expanded(given)
    except OSError:
        return []
    if not directory.is_dir() or (directory / "checkpoints").exists():
        return []
    runs = find_runs([directory])
    return [] if runs == [directory] else [str(Path(run)) for run in runs]
