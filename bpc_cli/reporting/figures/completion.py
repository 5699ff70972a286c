"""The figure of completion: accuracy and error against the fraction of pixels that are hidden."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bpc_cli.evaluation.statistics import whole
from bpc_cli.options.names import HIDDEN_PARTS
from bpc_cli.reporting.configurations import Comparison, Configuration
from bpc_cli.reporting.figures.panels import Look, add_legend, look_of
from bpc_cli.reporting.reader import CompletionRow

# What is drawn of each: by inference, or else feedforward.
_RANGES = {
    "accuracy (%)": ("accuracy_by_relaxation", "accuracy_by_pass"),
    "RMSE of hidden pixels": ("rmse", "rmse_drawn"),
}


def draw_completion(
    comparison: Comparison, configurations: Sequence[Configuration]
) -> Figure | None:
    """Draw what evaluations measured of images of which parts are hidden, for each hidden part.

    Lines are means over seeds, bands from the lowest to the highest. They are of completion by
    inference, or of feedforward passes where a network does not infer; dotted lines without markers
    are the feedforward passes of one that does.

    Args:
        comparison: what the report is about.
        configurations: those of its configurations that are drawn.

    Returns:
        None where completion was not measured.
    """
    measured = [each for each in configurations if any(run.completion for run in each.runs)]
    parts = [part for part in HIDDEN_PARTS if any(_rows(each, part) for each in measured)]
    if not parts:
        return None
    figure = Figure(
        figsize=(0.6 + 3.4 * len(parts), 6.4 + 0.2 * len(measured)), layout="constrained"
    )
    panels = figure.subplots(2, len(parts), sharey="row", squeeze=False)
    several = len(comparison.data_sets) > 1
    for column, part in enumerate(parts):
        for number, each in enumerate(measured):
            look, rows = look_of(number, len(measured)), _rows(each, part)
            label = each.caption if several else each.label
            for axes, (inferred, feedforward) in zip(
                panels[:, column], _RANGES.values(), strict=True
            ):
                if _draw(axes, rows, inferred, label, look):
                    _draw(axes, rows, feedforward, None, _dotted(look))
                else:
                    _draw(axes, rows, feedforward, label, look)
        panels[1, column].set_xlabel(f"{part} pixels hidden (%)")
        for axes in panels[:, column]:
            axes.grid(alpha=0.3)
    for axes, label in zip(panels[:, 0], _RANGES, strict=True):
        axes.set_ylabel(label)
    add_legend(figure, list(panels.flat))
    return figure


def _rows(configuration: Configuration, part: str) -> list[list[CompletionRow]]:
    """List the rows of each of a configuration's seeds."""
    included = {whole(line, "seed") for line in configuration.lines}
    return [
        by_part[part]
        for run in configuration.runs
        for seed, by_part in run.completion.items()
        if seed in included and part in by_part
    ]


def _dotted(look: Look) -> Look:
    return {**look, "marker": "", "linestyle": ":", "linewidth": 1.0}


def _draw(
    axes: Axes, seeds: Sequence[Sequence[CompletionRow]], name: str, label: str | None, look: Look
) -> bool:
    """Draw a number of completion, and tell whether it was measured."""
    fractions = sorted({row["hidden"] or 0.0 for rows in seeds for row in rows})
    values = [
        [row[name] for rows in seeds for row in rows if row["hidden"] == fraction]
        for fraction in fractions
    ]
    known = [
        (100 * fraction, [value for value in own if value is not None])
        for fraction, own in zip(fractions, values, strict=True)
        if own and None not in own
    ]
    if not known:
        return False
    places = [place for place, _ in known]
    axes.plot(places, [float(np.mean(own)) for _, own in known], label=label, **look)
    low, high = ([end(own) for _, own in known] for end in (min, max))
    axes.fill_between(places, low, high, color=look["color"], alpha=0.15, linewidth=0)
    return True
