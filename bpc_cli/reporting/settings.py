"""The box of a report that says what its runs have in common: how to make them again."""

import shlex
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from bpc_cli.reporting.configurations import Comparison, in_words
from bpc_cli.reporting.reader import OptionValue, RunRecord

_MOST_OPTIONS = 200
_MOST_COMMITS = 5
_MOST_VERSIONS = 10
_MOST_SWEPT = 20


class Settings(NamedTuple):
    """What runs have in common, in words.

    Attributes:
        command: the command that makes them, where values differ with "…".
        dates: when they ended; "" where none says.
        commits: the commits that they were made with; "" where none is known.
        versions: software and devices that they were made with, a line for each set of them.
        options: names and values of options that all share, as many as are shown.
        n_options: how many they share.
    """

    command: str
    dates: str
    commits: str
    versions: list[str]
    options: list[tuple[str, str]]
    n_options: int


def shared_settings(comparison: Comparison) -> Settings | None:
    """Sum up what runs share; None where no run could be read."""
    runs = [run for run in comparison.runs if run.options]
    if not runs:
        return None
    shared = _shared_options(runs)
    shown = [(name, in_words(value)) for name, value in list(shared.items())[:_MOST_OPTIONS]]
    return Settings(
        command=_command(runs),
        dates=" to ".join(_first_and_last([run.ended for run in runs if run.ended])),
        commits=_counted([run.commit for run in runs if run.commit], _MOST_COMMITS),
        versions=_versions(runs),
        options=shown,
        n_options=len(shared),
    )


def key_versions(run: RunRecord) -> tuple[tuple[str, str], ...]:
    """Return the software and device of a run such that they can be compared."""
    return tuple(sorted(run.versions.items()))


def _shared_options(runs: Sequence[RunRecord]) -> dict[str, OptionValue]:
    return {
        name: value
        for name, value in runs[0].options.items()
        if all(name in run.options and run.options[name] == value for run in runs)
    }


def _command(runs: Sequence[RunRecord]) -> str:
    """Write the words that all command lines had, and of the others which options they gave."""
    words = dict.fromkeys(word for run in runs for word in run.overrides)
    is_shared = {word: all(word in run.overrides for run in runs) for word in words}
    others = dict.fromkeys(word.partition("=")[0] for word in words if not is_shared[word])
    swept = [f"{option}=…" for option in list(others)[:_MOST_SWEPT]]
    shared = [shlex.quote(word) for word in words if is_shared[word]]
    return " ".join(["bpc-train", *(["-m"] if swept else []), *shared, *swept])


def _first_and_last(dates: Sequence[str]) -> list[str]:
    return list(dict.fromkeys([min(dates), max(dates)])) if dates else []


def _counted(names: Sequence[str], most: int) -> str:
    return ", ".join(f"{name} ({n} runs)" for name, n in Counter(names).most_common(most))


def _versions(runs: Sequence[RunRecord]) -> list[str]:
    counts = Counter(key_versions(run) for run in runs if run.versions)
    return [
        f"{', '.join(f'{name} {version}' for name, version in versions)} ({count} runs)"
        for versions, count in counts.most_common(_MOST_VERSIONS)
    ]
