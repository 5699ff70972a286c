"""The tables of a report: configurations with their final metrics, and `results.csv`."""

import csv
import io
from collections.abc import Sequence
from html import escape

from bpc_cli.evaluation.metrics import Metric
from bpc_cli.evaluation.statistics import Spread
from bpc_cli.reporting.configurations import Comparison, Configuration, in_words
from bpc_cli.reporting.metrics_lines import is_number
from bpc_cli.reporting.reader import OptionValue, RunRecord
from bpc_cli.reporting.text import shortened

_MOST_OPTIONS = 30
_LONGEST_CELL = 10_000  # readers of CSV have limits of their own


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


def metrics_table(comparison: Comparison) -> str:
    """Write configurations and their final metrics as an HTML table that a browser can sort."""
    metrics, label_loss = comparison.metrics, comparison.label_loss
    options = list(comparison.configurations[0].options)[:_MOST_OPTIONS]
    titles = [metric.axis_label(label_loss) for metric in metrics]
    headings = ["data set", *options, "seeds", *titles]
    head = "".join(f'<th scope="col"><button>{escape(text)}</button></th>' for text in headings)
    rows = [
        f"<tr>{_row(configuration, comparison, options, metrics)}</tr>"
        for configuration in comparison.configurations
    ]
    left_out = len(comparison.configurations[0].options) - len(options)
    more = f"<p>They differ in {left_out} more options.</p>" if left_out else ""
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>{more}"
        "<p>★ best mean of its data set. Mean ± standard deviation over seeds, and the 95 % "
        "bootstrap interval of the mean. Every run and seed: <code>results.csv</code>.</p>"
    )


def _row(
    configuration: Configuration,
    comparison: Comparison,
    options: Sequence[str],
    metrics: Sequence[Metric],
) -> str:
    cells = [_cell(configuration.data_set)]
    cells += [_cell(configuration.options[name]) for name in options]
    cells.append(_cell(len(configuration.lines)))
    for metric in metrics:
        is_best = comparison.best(configuration.data_set, metric) is configuration
        cells.append(_metric_cell(configuration.spreads.get(metric.name), metric, is_best=is_best))
    return "".join(cells)


def _csv_cell(value: OptionValue) -> OptionValue:
    return shortened(value, _LONGEST_CELL) if isinstance(value, str) else value


def _cell(value: OptionValue) -> str:
    kind = ' class="number"' if is_number(value) else ""
    text = in_words(value)
    key = str(value) if is_number(value) else text
    return f'<td{kind} data-value="{escape(key)}">{escape(text)}</td>'


def _metric_cell(spread: Spread | None, metric: Metric, *, is_best: bool) -> str:
    if spread is None:
        return '<td class="number" data-value="">–</td>'
    digits = metric.decimals
    text = f"{'★ ' if is_best else ''}{spread.mean:.{digits}f}"
    if spread.std is not None:
        text += f" ± {spread.std:.{digits}f}"
        text += (
            f'<br><span class="interval">[{spread.low:.{digits}f}, {spread.high:.{digits}f}]</span>'
        )
    kind = "number best" if is_best else "number"
    return f'<td class="{kind}" data-value="{spread.mean!r}">{text}</td>'
