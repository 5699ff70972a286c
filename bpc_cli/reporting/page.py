"""The page of a report: one HTML file with everything inside, and no address elsewhere."""

import base64
from collections import Counter
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path

from bpc_cli.evaluation.statistics import whole
from bpc_cli.reporting.configurations import Comparison, Configuration, describe
from bpc_cli.reporting.figures.save import ReportFigures
from bpc_cli.reporting.reader import RunRecord
from bpc_cli.reporting.settings import settings_box
from bpc_cli.reporting.tables import metrics_table
from bpc_cli.reporting.text import shortened

_KINDS = {".svg": "image/svg+xml", ".png": "image/png", ".gif": "image/gif"}
_MOST_SAMPLES = 48
_MOST_EMBEDDED = 1_500_000  # bytes of animations; the others lie beside the page
_MOST_LISTED = 200
_MOST_REPEATED = 10
_LONGEST_PATH = 300


def make_page(comparison: Comparison, figures: ReportFigures, refresh: float | None = None) -> str:
    """Make a report's page.

    Args:
        comparison: what it is about.
        figures: its figures, beside which the page will lie.
        refresh: seconds after which a browser is to load it again; None for never.

    Returns:
        The page as HTML.
    """
    reload = "" if refresh is None else f'<meta http-equiv="refresh" content="{refresh:g}">'
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"{reload}<title>bpc report</title><style>\n{_packaged('page.css')}</style></head><body>",
        f"<h1>bpc report</h1><p>{escape(_headline(comparison))}</p>",
        *(f'<p class="note">{escape(note)}</p>' for note in _notes(comparison)),
        *(f'<p class="note">{escape(problem)}</p>' for problem in figures.problems),
        *settings_box(comparison),
        *_trade_off(figures),
        *_configurations(comparison),
        *_samples(comparison.configurations, figures.samples),
        *_learning_curves(figures, len(comparison.configurations)),
        *_animations(comparison.configurations, figures.animations),
        *_unhealthy(comparison.runs, comparison.differing_at_all),
        *_unfinished(comparison.unfinished, comparison.differing_at_all),
        *_versions(comparison.runs),
        f"<script>\n{_packaged('page.js')}</script>",
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _packaged(name: str) -> str:
    """Read a file of this package, which an installed one has, too."""
    return resources.files("bpc_cli.reporting").joinpath(name).read_text("utf-8")


def _headline(comparison: Comparison) -> str:
    statuses = Counter(run.status for run in comparison.runs)
    counts = ", ".join(f"{count} {status}" for status, count in statuses.items())
    n_networks = sum(len(each.lines) for each in comparison.configurations)
    return (
        f"{len(comparison.runs)} runs ({counts}); {len(comparison.configurations)} configurations, "
        f"{n_networks} trained networks; data: {', '.join(comparison.data_sets) or 'none yet'}."
    )


def _notes(comparison: Comparison) -> list[str]:
    """List in words what a reader must know before comparing numbers."""
    notes = []
    if len(comparison.data_sets) > 1:
        notes.append(
            f"These runs are on different data sets ({', '.join(comparison.data_sets)}). "
            "They are shown apart and never averaged; numbers of one say nothing about another."
        )
    if comparison.unfinished:
        notes.append(
            f"{len(comparison.unfinished)} runs are not finished. They are left out of every "
            "number and figure, and listed below."
        )
    if unhealthy := sum(bool(run.health) for run in comparison.runs):
        notes.append(
            f"The training of {unhealthy} runs showed signs of bad health, listed below. Finished "
            "ones are included in every number and figure."
        )
    if comparison.repeated:
        paths = ", ".join(_path_of(run) for run in comparison.repeated[:_MOST_REPEATED])
        notes.append(f"Left out, as later runs have the same configuration and seeds: {paths}.")
    if len({_key_versions(run) for run in comparison.runs if run.versions}) > 1:
        notes.append("These runs were made with different software or devices (see the end).")
    if comparison.configurations and all(len(c.lines) == 1 for c in comparison.configurations):
        notes.append("There is one seed for each configuration, so there are no intervals.")
    return notes


def _trade_off(figures: ReportFigures) -> list[str]:
    if figures.trade_off is None:
        return []
    caption = "Means over seeds, with 95 % bootstrap intervals of the mean."
    alt = "metrics against what was swept, and against each other"
    parts = ["<h2>Trade-off</h2>", _figure(figures.trade_off, alt, caption)]
    if figures.heat_maps is not None:
        caption = "Means over seeds, of the two options that were swept; bright is better."
        parts.append(_figure(figures.heat_maps, "metrics over two options", caption))
    return parts


def _configurations(comparison: Comparison) -> list[str]:
    if not comparison.configurations:
        return []
    return ["<h2>Configurations and final metrics</h2>", metrics_table(comparison)]


def _learning_curves(figures: ReportFigures, n_configurations: int) -> list[str]:
    if figures.learning_curves is None:
        return []
    caption = (
        f"Means and ranges over seeds, of {figures.n_curves} of {n_configurations} configurations; "
        "losses are averaged over stretches of iterations."
    )
    return [
        "<h2>Learning curves</h2>",
        _figure(figures.learning_curves, "learning curves", caption),
    ]


def _samples(
    configurations: Sequence[Configuration], pictures: Sequence[bytes | None]
) -> list[str]:
    figures = [
        f'<figure><img alt="samples" src="{_inline(picture, ".png")}">'
        f"<figcaption>{escape(each.caption)}</figcaption></figure>"
        for each, picture in zip(configurations, pictures, strict=True)
        if picture is not None
    ]
    if not figures:
        return []
    left_out = len(figures) - _MOST_SAMPLES
    more = f"<p>{left_out} more configurations have samples.</p>" if left_out > 0 else ""
    grids = "".join(figures[:_MOST_SAMPLES])
    return ["<h2>Samples</h2>", f'<div class="grids">{grids}</div>{more}']


def _animations(
    configurations: Sequence[Configuration], animations: Sequence[Path | None]
) -> list[str]:
    figures, embedded = [], 0
    for each, path in zip(configurations, animations, strict=True):
        if path is None:
            continue
        content = path.read_bytes()
        embedded += len(content)
        source = _inline(content, path.suffix) if embedded <= _MOST_EMBEDDED else path.name
        figures.append(
            f'<figure><img alt="samples during training" src="{source}">'
            f"<figcaption>{escape(each.caption)}: <code>{escape(path.name)}</code>"
            "</figcaption></figure>"
        )
    if not figures:
        return []
    return ["<h2>Samples during training</h2>", f'<div class="grids">{"".join(figures)}</div>']


def _unhealthy(runs: Sequence[RunRecord], differing: Sequence[str]) -> list[str]:
    """List the runs whose training showed signs of bad health, whether they finished or not."""
    unhealthy = [run for run in runs if run.health]
    if not unhealthy:
        return []
    rows = "".join(
        f"<tr><td><code>{escape(_path_of(run))}</code></td>"
        f"<td>{escape(_options_in_words(run, differing))}</td>"
        f'<td class="reason">{"<br>".join(map(escape, run.health))}</td></tr>'
        for run in unhealthy[:_MOST_LISTED]
    )
    left_out = len(unhealthy) - _MOST_LISTED
    more = f"<p>And {left_out} more.</p>" if left_out > 0 else ""
    return [
        "<h2>Runs whose training looks unhealthy</h2>",
        '<div class="wide"><table><thead><tr><th>run</th><th>configuration</th><th>signs</th></tr>'
        f"</thead><tbody>{rows}</tbody></table></div>{more}",
    ]


def _unfinished(runs: Sequence[RunRecord], differing: Sequence[str]) -> list[str]:
    if not runs:
        return []
    rows = "".join(_unfinished_row(run, differing) for run in runs[:_MOST_LISTED])
    more = f"<p>And {len(runs) - _MOST_LISTED} more.</p>" if len(runs) > _MOST_LISTED else ""
    return [
        "<h2>Runs that are not finished</h2>",
        '<div class="wide"><table><thead><tr><th>run</th><th>status</th>'
        "<th>configuration</th><th>iteration</th>"
        f"<th>reason</th></tr></thead><tbody>{rows}</tbody></table></div>{more}",
    ]


def _unfinished_row(run: RunRecord, differing: Sequence[str]) -> str:
    options = _options_in_words(run, differing)
    iteration = whole(run.lines[-1], "iteration") if run.lines else "–"
    return (
        f"<tr><td><code>{escape(_path_of(run))}</code></td><td>{escape(run.status)}</td>"
        f'<td>{escape(options)}</td><td class="number">{iteration}</td>'
        f'<td class="reason">{escape(run.reason or "")}</td></tr>'
    )


def _options_in_words(run: RunRecord, differing: Sequence[str]) -> str:
    return describe({name: run.options.get(name) for name in differing})


def _path_of(run: RunRecord) -> str:
    return shortened(run.name, _LONGEST_PATH)


def _versions(runs: Sequence[RunRecord]) -> list[str]:
    counts = Counter(_key_versions(run) for run in runs if run.versions)
    if not counts:
        return []
    rows = "".join(
        f'<tr><td class="number">{count}</td>'
        f"<td>{escape(', '.join(f'{name} {version}' for name, version in versions))}</td></tr>"
        for versions, count in counts.items()
    )
    return [
        "<h2>Software and devices</h2>",
        "<table><thead><tr><th>runs</th><th>made with</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>",
    ]


def _key_versions(run: RunRecord) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(run.versions.items()))


def _figure(path: Path, alt: str, caption: str) -> str:
    source = _inline(path.read_bytes(), path.suffix)
    return (
        f'<figure><div class="wide"><img alt="{alt}" src="{source}"></div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _inline(content: bytes, suffix: str) -> str:
    return f"data:{_KINDS[suffix]};base64,{base64.b64encode(content).decode()}"
