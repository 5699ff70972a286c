"""The tables of a report: configurations with their final metrics, and `results.csv`."""

import csv
import io
from collections.abc import Sequence
from typing import NamedTuple

from bpc_cli.evaluation.metrics import Metric
from bpc_cli.evaluation.statistics import MetricsLine, Spread, spread, whole
from bpc_cli.reporting.configurations import Comparison, Configuration, in_words
from bpc_cli.reporting.metrics_lines import is_number
from bpc_cli.reporting.reader import OptionValue, RunRecord
from bpc_cli.reporting.text import shortened

_MOST_OPTIONS = 30
_MOST_RUNS = 20  # linked to in a row
_MOST_DIFFERENCES = 200  # rows
_LONGEST_LABEL = 160
_LONGEST_CELL = 10_000  # readers of CSV have limits of their own


class Cell(NamedTuple):
    """A cell of a table.

    Attributes:
        text: what it shows.
        kind: words for its style: "number", "best".
        value: what its column is sorted by.
        interval: a second line: an interval.
    """

    text: str
    kind: str
    value: str
    interval: str = ""


class Row(NamedTuple):
    """A configuration: its cells, its runs that are linked to, and how many more it has."""

    cells: list[Cell]
    runs: list[RunRecord]
    more_runs: str


class Table(NamedTuple):
    """Configurations and their final metrics.

    Attributes:
        headings: the columns'.
        rows: a row for each configuration.
        n_left_out: how many options there is no column for.
    """

    headings: list[str]
    rows: list[Row]
    n_left_out: int


def results_table(runs: Sequence[RunRecord]) -> str:
    """Write a row for each run and seed as CSV: where it is, how it ended, options, metrics."""
    options = dict.fromkeys(name for run in runs for name in run.options)
    metrics = dict.fromkeys(name for run in runs for line in run.final for name in line)
    for names in (options, metrics):
        names.pop("seed", None)  # a column of its own
    written = io.StringIO(newline="")
    table = csv.writer(written)
    table.writerow(["run", "status", "reason", "data_set", "seed", *options, *metrics])
    for run in runs:
        values = {name: _csv_cell(value) for name, value in run.options.items()}
        for line in run.final or [{}]:
            seed = line.get("seed", values.get("seed"))
            table.writerow(
                [
                    *(run.name, run.status, run.reason, run.data_set, seed),
                    *(values.get(name) for name in options),
                    *(line.get(name) for name in metrics),
                ]
            )
    return written.getvalue()


def metrics_table(comparison: Comparison) -> Table | None:
    """List configurations and their final metrics; None where there are none."""
    if not comparison.configurations:
        return None
    options = list(comparison.configurations[0].options)[:_MOST_OPTIONS]
    titles = [metric.axis_label(comparison.label_loss) for metric in comparison.metrics]
    return Table(
        headings=["data set", *options, "seeds", *titles],
        rows=[_row(each, comparison, options) for each in comparison.configurations],
        n_left_out=len(comparison.configurations[0].options) - len(options),
    )


class Differences(NamedTuple):
    """How far configurations of a data set are from its first, seed by seed.

    Attributes:
        reference: the first, in words.
        headings: the columns'.
        rows: the cells of a row for each other configuration.
    """

    reference: str
    headings: list[str]
    rows: list[list[Cell]]


def differences(comparison: Comparison) -> list[Differences]:
    """Subtract each data set's first configuration from its others, paired by seed.

    The interval is the bootstrap's, of the mean over seeds that both have; at least two.
    """
    found = []
    titles = [metric.axis_label(comparison.label_loss) for metric in comparison.metrics]
    for data_set in comparison.data_sets:
        first, *others = [c for c in comparison.configurations if c.data_set == data_set]
        rows = []
        for each in others[:_MOST_DIFFERENCES]:
            shared = sorted(_by_seed(first).keys() & _by_seed(each).keys())
            if len(shared) > 1:
                cells = _difference_cells(first, each, shared, comparison.metrics)
                label = _cell(shortened(each.label, _LONGEST_LABEL))
                rows.append([label, _cell(len(shared)), *cells])
        if rows:
            headings = ["configuration", "seeds", *titles]
            found.append(Differences(shortened(first.caption, _LONGEST_LABEL), headings, rows))
    return found


def _difference_cells(
    first: Configuration, other: Configuration, seeds: Sequence[int], metrics: Sequence[Metric]
) -> list[Cell]:
    firsts, others = _by_seed(first), _by_seed(other)
    cells = []
    for metric in metrics:
        pairs = [(others[seed].get(metric.name), firsts[seed].get(metric.name)) for seed in seeds]
        numbers = [a - b for a, b in pairs if a is not None and b is not None]
        if len(numbers) < len(seeds):
            cells.append(Cell("–", "number", ""))
            continue
        apart, digits = spread(numbers), metric.decimals
        interval = f"[{apart.low:+.{digits}f}, {apart.high:+.{digits}f}]"
        cells.append(Cell(f"{apart.mean:+.{digits}f}", "number", repr(apart.mean), interval))
    return cells


def _by_seed(configuration: Configuration) -> dict[int, MetricsLine]:
    return {whole(line, "seed"): line for line in configuration.lines}


def _row(configuration: Configuration, comparison: Comparison, options: Sequence[str]) -> Row:
    cells = [_cell(configuration.data_set)]
    cells += [_cell(configuration.options[name]) for name in options]
    cells.append(_cell(len(configuration.lines)))
    for metric in comparison.metrics:
        is_best = comparison.best(configuration.data_set, metric) is configuration
        cells.append(_metric_cell(configuration.spreads.get(metric.name), metric, is_best=is_best))
    left_out = len(configuration.runs) - _MOST_RUNS
    more = f"and {left_out} more" if left_out > 0 else ""
    return Row(cells, configuration.runs[:_MOST_RUNS], more)


def _csv_cell(value: OptionValue) -> OptionValue:
    return shortened(value, _LONGEST_CELL) if isinstance(value, str) else value


def _cell(value: OptionValue) -> Cell:
    text = in_words(value)
    return Cell(text, "number", str(value)) if is_number(value) else Cell(text, "", text)


def _metric_cell(spread: Spread | None, metric: Metric, *, is_best: bool) -> Cell:
    if spread is None:
        return Cell("–", "number", "")
    digits = metric.decimals
    text, interval = f"{'★ ' if is_best else ''}{spread.mean:.{digits}f}", ""
    if spread.std is not None:
        text += f" ± {spread.std:.{digits}f}"
        interval = f"[{spread.low:.{digits}f}, {spread.high:.{digits}f}]"
    return Cell(text, "number best" if is_best else "number", repr(spread.mean), interval)
