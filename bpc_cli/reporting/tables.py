"""The tables of a report: configurations with their final metrics, and `results.csv`."""

import csv
import io
from collections.abc import Sequence
from typing import NamedTuple

from bpc_cli.evaluation.metrics import Metric
from bpc_cli.evaluation.statistics import Spread
from bpc_cli.reporting.configurations import Comparison, Configuration, in_words
from bpc_cli.reporting.metrics_lines import is_number
from bpc_cli.reporting.reader import OptionValue, RunRecord
from bpc_cli.reporting.text import shortened

_MOST_OPTIONS = 30
_MOST_RUNS = 20  # linked to in a row
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
