"""The box of a report that says what its runs have in common: how to make them again."""

import shlex
from collections import Counter
from collections.abc import Sequence
from html import escape

from bpc_cli.reporting.configurations import Comparison, in_words
from bpc_cli.reporting.reader import OptionValue, RunRecord

_MOST_OPTIONS = 200
_MOST_COMMITS = 5
_MOST_SWEPT = 20


def settings_box(comparison: Comparison) -> list[str]:
    """Write what runs share: words of their command lines, the commit, and every option."""
    runs = [run for run in comparison.runs if run.options]
    if not runs:
        return []
    shared = _shared_options(runs)
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(in_words(value))}</td></tr>"
        for name, value in list(shared.items())[:_MOST_OPTIONS]
    )
    return [
        '<div class="settings">',
        f"<p>Command: <code>{escape(_command(runs))}</code></p>",
        *_commits(runs),
        f"<details><summary>{len(shared)} settings that all runs share</summary>",
        f'<div class="wide"><table><tbody>{rows}</tbody></table></div></details></div>',
    ]


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


def _commits(runs: Sequence[RunRecord]) -> list[str]:
    counts = Counter(run.commit for run in runs if run.commit)
    if not counts:
        return []
    named = ", ".join(f"{commit} ({n} runs)" for commit, n in counts.most_common(_MOST_COMMITS))
    return [f"<p>Commit: <code>{escape(named)}</code></p>"]
