"""What a report's figures show, in words, for who cannot see them."""

import itertools
from collections.abc import Sequence

from bpc_cli.evaluation.metrics import Metric
from bpc_cli.reporting.configurations import Comparison, Configuration, in_words
from bpc_cli.reporting.figures.swept import swept_axes

_MOST_DATA_SETS = 5


def trade_off_in_words(comparison: Comparison) -> str:
    """Say where each metric is best and worst, and how it goes over what was swept."""
    option = swept_axes(comparison)[0].option
    return _in_sentences(comparison, f"Metrics against {option}.", option)


def heat_maps_in_words(comparison: Comparison) -> str:
    """Say where over two options each metric is best and worst."""
    options = " and ".join(axis.option for axis in swept_axes(comparison)[:2])
    return _in_sentences(comparison, f"Metrics over {options}.", None)


def learning_curves_in_words(comparison: Comparison) -> str:
    """Say from where to where each metric has gone during training."""
    sentences = ["Metrics over iterations."]
    for metric in comparison.metrics:
        firsts, lasts = [], []
        for run in (run for each in comparison.configurations for run in each.runs):
            lines = [line for line in run.lines if line.get(metric.name) is not None]
            for values, ends in ((firsts, lines[:1]), (lasts, lines[-1:])):
                at = {line["iteration"] for line in ends}
                values += [line[metric.name] for line in lines if line["iteration"] in at]
        if lasts:
            first, last = _range(firsts, metric), _range(lasts, metric)
            sentences.append(f"{_named(metric)}: at first {first}, in the end {last}.")
    return " ".join(sentences)


def completion_in_words(comparison: Comparison) -> str:
    """Say what was completed; the table has the numbers with half of the pixels hidden."""
    measured = [each for each in comparison.configurations if any(r.completion for r in each.runs)]
    return (
        "Accuracy and error of pixels against the fraction of pixels that are hidden, of "
        f"{len(measured)} configurations."
    )


def samples_in_words(configuration: Configuration) -> str:
    """Say whose samples a grid shows."""
    return f"Images generated for each class, {configuration.caption}"


def _in_sentences(comparison: Comparison, first: str, swept: str | None) -> str:
    sentences = [first]
    for data_set in comparison.data_sets[:_MOST_DATA_SETS]:
        members = [each for each in comparison.configurations if each.data_set == data_set]
        for metric in (metric for metric in comparison.metrics if metric.better is not None):
            having = [each for each in members if metric.name in each.spreads]
            if having:
                words = _best_and_worst(having, metric)
                sentences.append(f"{_named(metric)} on {data_set}: {words}.")
                sentences += _trend(having, metric, swept)
    return " ".join(sentences)


def _best_and_worst(members: Sequence[Configuration], metric: Metric) -> str:
    ordered = sorted(members, key=lambda each: each.spreads[metric.name].mean)
    if metric.better == "higher":
        ordered.reverse()
    best, worst = (
        f"{metric.in_words(each.spreads[metric.name].mean)}"
        + (f" at {each.label}" if each.label else "")
        for each in (ordered[0], ordered[-1])
    )
    return f"best {best}, worst {worst}" if len(ordered) > 1 else best


def _trend(members: Sequence[Configuration], metric: Metric, swept: str | None) -> list[str]:
    """Say whether a metric rises or falls throughout, where one option alone differs."""
    if swept is None or len(members) < 3:
        return []
    others = {tuple(each.options_but(swept).items()) for each in members}
    values = [each.options.get(swept) for each in members]
    if len(others) != 1 or not all(isinstance(value, int | float) for value in values):
        return []
    ordered = sorted(members, key=lambda each: float(each.options[swept] or 0))
    means = [each.spreads[metric.name].mean for each in ordered]
    steps = [later - earlier for earlier, later in itertools.pairwise(means)]
    for way, is_so in (("rises", min(steps) > 0), ("falls", max(steps) < 0)):
        if is_so:
            ends = [in_words(ordered[i].options[swept]) for i in (0, -1)]
            return [f"It {way} throughout from {swept} {ends[0]} to {ends[1]}."]
    return []


def _named(metric: Metric) -> str:
    return metric.title[:1].upper() + metric.title[1:]


def _range(values: Sequence[int | float | None], metric: Metric) -> str:
    numbers = [value for value in values if value is not None]
    low, high = (metric.in_words(value) for value in (min(numbers), max(numbers)))
    return low if low == high else f"{low} to {high}"
