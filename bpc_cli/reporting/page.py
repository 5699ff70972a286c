"""The page of a report: one HTML file with everything inside, and no address elsewhere."""

import base64
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from bpc_cli.evaluation.statistics import whole
from bpc_cli.reporting import alt_texts
from bpc_cli.reporting.charts import chart_data
from bpc_cli.reporting.configurations import Comparison, Configuration, describe
from bpc_cli.reporting.figures.save import ReportFigures
from bpc_cli.reporting.reader import RunRecord
from bpc_cli.reporting.settings import key_versions, shared_settings
from bpc_cli.reporting.tables import differences, metrics_table
from bpc_cli.reporting.text import path_in_words, shortened

_KINDS = {".svg": "image/svg+xml", ".png": "image/png", ".gif": "image/gif"}
_SCRIPTS = (
    "web/tables.js",
    "vendor/echarts.min.js",
    "web/choices.js",
    "web/axes.js",
    "web/charts.js",
)
_MOST_SAMPLES = 48
_MOST_EMBEDDED = 500_000  # bytes of animations; the others lie beside the page
_MOST_LISTED = 200
_MOST_REPEATED = 10
_LONGEST_PATH = 300


class Grid(NamedTuple):
    """A picture of samples: which configuration's, its text, and where it is."""

    number: int
    alt: str
    caption: str
    source: str
    name: str = ""


class ListCell(NamedTuple):
    """A cell of a list of runs: its lines, and a word for its style."""

    lines: list[str]
    kind: str = ""


class RunList(NamedTuple):
    """A list of runs, each with its cells, and how many more there are."""

    rows: list[tuple[RunRecord, list[ListCell]]]
    n_left_out: int


def make_page(
    comparison: Comparison, figures: ReportFigures, folder: Path, refresh: float | None = None
) -> str:
    """Make a report's page.

    Args:
        comparison: what it is about.
        figures: its figures, beside which the page will lie.
        folder: where the page will lie, from where it links to runs.
        refresh: seconds after which a browser is to load it again; None for never.

    Returns:
        The page as HTML.
    """
    environment = Environment(
        loader=PackageLoader("bpc_cli.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["path"] = _path_of
    environment.filters["printed"] = path_in_words
    environment.globals["link_to"] = lambda run: _link(run, folder)
    environment.globals["inline"] = lambda path: _inline(path.read_bytes(), path.suffix)
    charts = chart_data(comparison)
    script = "".join(map(_packaged, _SCRIPTS[: None if charts else 1]))
    return environment.get_template("page.html").render(
        comparison=comparison,
        figures=figures,
        refresh=None if refresh is None else f"{refresh:g}",
        content_policy=_content_policy(script),
        style=_packaged("web/page.css"),
        script=script,
        charts=charts,
        headline=_headline(comparison),
        notes=[*_notes(comparison), *figures.problems],
        settings=shared_settings(comparison),
        table=metrics_table(comparison),
        differences=differences(comparison),
        alt=_alt_texts(comparison, figures),
        seeds_in_words=_seeds_in_words(comparison.configurations),
        samples=_samples(comparison.configurations, figures.samples),
        animations=list(_animations(comparison.configurations, figures.animations)),
        unhealthy=_unhealthy(comparison.runs, comparison.differing_at_all),
        unfinished=_unfinished(comparison.unfinished, comparison.differing_at_all),
    )


def _packaged(name: str) -> str:
    """Read a file of this package, which an installed one has, too."""
    return resources.files("bpc_cli.reporting").joinpath(name).read_text("utf-8")


def _content_policy(script: str) -> str:
    """Allow a browser our own script and pictures of the page and beside it, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data: file: 'self'"
    )


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
    if len({key_versions(run) for run in comparison.runs if run.versions}) > 1:
        notes.append("These runs were made with different software or devices.")
    if comparison.configurations and all(len(c.lines) == 1 for c in comparison.configurations):
        notes.append("There is one seed for each configuration, so there are no intervals.")
    return notes


def _alt_texts(comparison: Comparison, figures: ReportFigures) -> dict[str, str]:
    texts = {
        "trade_off": alt_texts.trade_off_in_words,
        "heat_maps": alt_texts.heat_maps_in_words,
        "completion": alt_texts.completion_in_words,
        "learning_curves": alt_texts.learning_curves_in_words,
    }
    return {
        name: describe_figure(comparison)
        for name, describe_figure in texts.items()
        if getattr(figures, name) is not None
    }


def _seeds_in_words(configurations: Sequence[Configuration]) -> str:
    """Say over how many seeds means are taken."""
    counts = sorted({len(each.lines) for each in configurations})
    if not counts:
        return ""
    most = f" to {counts[-1]}" if len(counts) > 1 else ""
    return f" Seeds of each configuration: {counts[0]}{most}."


class Samples(NamedTuple):
    """Sample grids that a page shows, and how many more there are."""

    shown: list[Grid]
    n_left_out: int


def _samples(configurations: Sequence[Configuration], pictures: Sequence[bytes | None]) -> Samples:
    grids = [
        Grid(number, alt_texts.samples_in_words(each), each.caption, _inline(picture, ".png"))
        for number, (each, picture) in enumerate(zip(configurations, pictures, strict=True))
        if picture is not None
    ]
    return Samples(grids[:_MOST_SAMPLES], max(0, len(grids) - _MOST_SAMPLES))


def _animations(
    configurations: Sequence[Configuration], animations: Sequence[Path | None]
) -> Iterable[Grid]:
    embedded = 0
    for number, (each, path) in enumerate(zip(configurations, animations, strict=True)):
        if path is None:
            continue
        content = path.read_bytes()
        embedded += len(content)
        source = _inline(content, path.suffix) if embedded <= _MOST_EMBEDDED else path.name
        alt = f"{alt_texts.samples_in_words(each)}, at each test point"
        yield Grid(number, alt, each.caption, source, path.name)


def _unhealthy(runs: Sequence[RunRecord], differing: Sequence[str]) -> RunList:
    """List the runs whose training showed signs of bad health, whether they finished or not."""
    unhealthy = [run for run in runs if run.health]
    return _run_list(
        [
            (run, [ListCell([_options_in_words(run, differing)]), ListCell(run.health, "reason")])
            for run in unhealthy
        ]
    )


def _unfinished(runs: Sequence[RunRecord], differing: Sequence[str]) -> RunList:
    def cells(run: RunRecord) -> list[ListCell]:
        iteration = str(whole(run.lines[-1], "iteration")) if run.lines else "–"
        return [
            ListCell([run.status]),
            ListCell([_options_in_words(run, differing)]),
            ListCell([iteration], "number"),
            ListCell([run.reason or ""], "reason"),
        ]

    return _run_list([(run, cells(run)) for run in runs])


def _run_list(rows: list[tuple[RunRecord, list[ListCell]]]) -> RunList:
    return RunList(rows[:_MOST_LISTED], max(0, len(rows) - _MOST_LISTED))


def _options_in_words(run: RunRecord, differing: Sequence[str]) -> str:
    return describe({name: run.options.get(name) for name in differing})


def _path_of(run: RunRecord) -> str:
    return shortened(run.name, _LONGEST_PATH)


def _link(run: RunRecord, folder: Path) -> str:
    """Write where a run's directory is from a page, as an address; its name is nobody's scheme."""
    return f"./{quote(os.path.relpath(os.fsencode(run.path), os.fsencode(folder)))}/"


def _inline(content: bytes, suffix: str) -> str:
    return f"data:{_KINDS[suffix]};base64,{base64.b64encode(content).decode()}"
