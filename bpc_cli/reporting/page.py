"""The page of a report: one HTML file with everything inside, and no address elsewhere."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from bpc_cli.evaluation.statistics import Spread
from bpc_cli.reporting.configurations import (
    METRICS_COMPARED,
    Comparison,
    Setting,
    describe,
    in_words,
)
from bpc_cli.reporting.reader import RunRecord

_HEADINGS = {
    "test_accuracy": ("test accuracy (%)", 2),
    "generation_error": ("generation error", 4),
    "gen_loss": ("generator's loss", 4),
    "amort_loss": ("amortiser's loss", 4),
}
_BEST = {"test_accuracy": max, "generation_error": min}
_MOST_SAMPLES = 48
_MOST_EMBEDDED = 1_500_000  # bytes of animations; the others lie beside the page
_MOST_LISTED = 200


def write_page(
    comparison: Comparison,
    folder: Path,
    *,
    pictures: Sequence[bytes | None],
    animations: Sequence[Path | None],
    n_curves: int,
    refresh: float | None = None,
) -> str:
    """Write a report's page.

    Args:
        comparison: what it is about.
        folder: where the figures lie that it takes in.
        pictures: a small sample grid for each setting, or None.
        animations: a GIF for each setting, or None.
        n_curves: how many settings the learning curves show; 0 where there are none.
        refresh: seconds after which a browser is to load it again; None for never.
    """
    reload = "" if refresh is None else f'<meta http-equiv="refresh" content="{refresh:g}">'
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"{reload}<title>bpc report</title><style>\n{_packaged('page.css')}</style></head><body>",
        f"<h1>bpc report</h1><p>{escape(_headline(comparison))}</p>",
        *_notes(comparison),
    ]
    if (folder / "trade_off.svg").exists():
        caption = "Means over seeds, with 95 % bootstrap intervals of the mean."
        parts += ["<h2>Trade-off</h2>", _figure(folder / "trade_off.svg", "trade-off", caption)]
    if comparison.settings:
        parts += ["<h2>Settings and final metrics</h2>", _table(comparison)]
    parts += _samples(comparison.settings, pictures)
    if n_curves:
        caption = (
            f"Means and ranges over seeds, of {n_curves} of {len(comparison.settings)} settings; "
            "losses are averaged over stretches of iterations."
        )
        parts += [
            "<h2>Learning curves</h2>",
            _figure(folder / "learning_curves.png", "learning curves", caption),
        ]
    parts += _animations(comparison.settings, animations)
    parts += _unfinished(comparison.unfinished, comparison.differing_at_all)
    parts += _versions(comparison.runs)
    parts += [f"<script>\n{_packaged('page.js')}</script>", "</body></html>"]
    return "\n".join(parts) + "\n"


def _packaged(name: str) -> str:
    """Read a file of this package, which an installed one has, too."""
    return resources.files("bpc_cli.reporting").joinpath(name).read_text("utf-8")


def _headline(comparison: Comparison) -> str:
    statuses: dict[str, int] = {}
    for run in comparison.runs:
        statuses[run.status] = statuses.get(run.status, 0) + 1
    counts = ", ".join(f"{count} {status}" for status, count in statuses.items())
    n_seeds = sum(len(setting.lines) for setting in comparison.settings)
    return (
        f"{len(comparison.runs)} runs ({counts}); {len(comparison.settings)} settings, "
        f"{n_seeds} trained networks; data: {', '.join(comparison.data_sets) or 'none yet'}."
    )


def _notes(comparison: Comparison) -> list[str]:
    notes = []
    if len(comparison.data_sets) > 1:
        notes.append(
            f"These runs are on different data sets ({', '.join(comparison.data_sets)}). "
            "They are shown apart and never averaged; figures of one say nothing of another."
        )
    if comparison.unfinished:
        notes.append(
            f"{len(comparison.unfinished)} runs are not finished and count in no figure: "
            "they are listed below."
        )
    if comparison.repeated:
        paths = ", ".join(str(run.path) for run in comparison.repeated[:10])
        notes.append(f"Left out, as later runs have the same setting and seeds: {paths}.")
    if len({_key_versions(run) for run in comparison.runs if run.versions}) > 1:
        notes.append("These runs were made with different software or devices (see the end).")
    if comparison.settings and all(len(setting.lines) == 1 for setting in comparison.settings):
        notes.append("There is one seed for each setting, so there are no intervals.")
    return [f'<p class="note">{escape(note)}</p>' for note in notes]


def _table(comparison: Comparison) -> str:
    metrics = [m for m in METRICS_COMPARED if any(m in s.spreads for s in comparison.settings)]
    options = list(comparison.settings[0].options)
    best = _best_of(comparison.settings)
    headings = ["data set", *options, "seeds", *(_HEADINGS[metric][0] for metric in metrics)]
    head = "".join(f'<th scope="col"><button>{escape(text)}</button></th>' for text in headings)
    rows = []
    for setting in comparison.settings:
        cells = [_cell(setting.data_set)]
        cells += [_cell(in_words(setting.options[name]), setting.options[name]) for name in options]
        cells.append(_cell(str(len(setting.lines)), len(setting.lines)))
        for metric in metrics:
            figure = setting.spreads.get(metric)
            is_best = (setting.data_set, metric, id(setting)) in best
            cells.append(_metric_cell(figure, _HEADINGS[metric][1], is_best=is_best))
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        "<p>★ best mean of its data set. Mean ± standard deviation over seeds, and the 95 % "
        "bootstrap interval of the mean. Every run and seed: <code>results.csv</code>.</p>"
    )


def _best_of(settings: Sequence[Setting]) -> set[tuple[str, str, int]]:
    best = set()
    for data_set in {setting.data_set for setting in settings}:
        for metric, choose in _BEST.items():
            of_it = [s for s in settings if s.data_set == data_set and metric in s.spreads]
            if len(of_it) > 1:
                winner = choose(of_it, key=lambda setting: setting.spreads[metric].mean)
                best.add((data_set, metric, id(winner)))
    return best


def _cell(text: str, value: Any = None) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    kind = ' class="number"' if number else ""
    return f'<td{kind} data-value="{escape(str(value) if number else text)}">{escape(text)}</td>'


def _metric_cell(figure: Spread | None, decimals: int, *, is_best: bool) -> str:
    if figure is None:
        return '<td class="number" data-value="">–</td>'
    text = f"{'★ ' if is_best else ''}{figure.mean:.{decimals}f}"
    if figure.std is not None:
        text += f" ± {figure.std:.{decimals}f}"
        text += (
            f'<br><span class="interval">[{figure.low:.{decimals}f}, '
            f"{figure.high:.{decimals}f}]</span>"
        )
    kind = "number best" if is_best else "number"
    return f'<td class="{kind}" data-value="{figure.mean!r}">{text}</td>'


def _samples(settings: Sequence[Setting], pictures: Sequence[bytes | None]) -> list[str]:
    figures = [
        f'<figure><img alt="samples" src="{_inline(picture, "image/png")}">'
        f"<figcaption>{escape(_caption(setting))}</figcaption></figure>"
        for setting, picture in zip(settings, pictures, strict=True)
        if picture is not None
    ]
    if not figures:
        return []
    left_out = len(figures) - _MOST_SAMPLES
    more = f"<p>{left_out} more settings have samples.</p>" if left_out > 0 else ""
    grids = "".join(figures[:_MOST_SAMPLES])
    return ["<h2>Samples</h2>", f'<div class="grids">{grids}</div>{more}']


def _animations(settings: Sequence[Setting], animations: Sequence[Path | None]) -> list[str]:
    figures, embedded = [], 0
    for setting, path in zip(settings, animations, strict=True):
        if path is None:
            continue
        content = path.read_bytes()
        embedded += len(content)
        source = _inline(content, "image/gif") if embedded <= _MOST_EMBEDDED else path.name
        figures.append(
            f'<figure><img alt="samples during training" src="{source}">'
            f"<figcaption>{escape(_caption(setting))}: <code>{escape(path.name)}</code>"
            "</figcaption></figure>"
        )
    if not figures:
        return []
    return ["<h2>Samples during training</h2>", f'<div class="grids">{"".join(figures)}</div>']


def _unfinished(runs: Sequence[RunRecord], differing: Sequence[str]) -> list[str]:
    if not runs:
        return []
    rows = "".join(
        f"<tr><td><code>{escape(str(run.path))}</code></td><td>{escape(run.status)}</td>"
        f"<td>{escape(describe({name: run.settings.get(name) for name in differing}))}</td>"
        f'<td class="number">{run.lines[-1]["iteration"] if run.lines else "–"}</td>'
        f'<td class="reason">{escape((run.reason or "")[:500])}</td></tr>'
        for run in runs[:_MOST_LISTED]
    )
    more = f"<p>And {len(runs) - _MOST_LISTED} more.</p>" if len(runs) > _MOST_LISTED else ""
    return [
        "<h2>Runs that are not finished</h2>",
        '<div class="wide"><table><thead><tr><th>run</th><th>status</th>'
        "<th>setting</th><th>iteration</th>"
        f"<th>reason</th></tr></thead><tbody>{rows}</tbody></table></div>{more}",
    ]


def _versions(runs: Sequence[RunRecord]) -> list[str]:
    counts: dict[tuple[tuple[str, str], ...], int] = {}
    for run in runs:
        if run.versions:
            counts[_key_versions(run)] = counts.get(_key_versions(run), 0) + 1
    rows = "".join(
        f'<tr><td class="number">{count}</td>'
        f"<td>{escape(', '.join(f'{name} {version}' for name, version in versions))}</td></tr>"
        for versions, count in counts.items()
    )
    if not rows:
        return []
    return [
        "<h2>Software and devices</h2>",
        "<table><thead><tr><th>runs</th><th>made with</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>",
    ]


def _key_versions(run: RunRecord) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(run.versions.items()))


def _caption(setting: Setting) -> str:
    return f"{setting.data_set}: {setting.label}" if setting.label else setting.data_set


def _figure(path: Path, alt: str, caption: str) -> str:
    kinds: Mapping[str, str] = {".svg": "image/svg+xml", ".png": "image/png"}
    source = _inline(path.read_bytes(), kinds[path.suffix])
    return (
        f'<figure><div class="wide"><img alt="{alt}" src="{source}"></div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _inline(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
