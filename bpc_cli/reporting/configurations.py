"""Sort runs into configurations, and sum up each one's seeds."""

import dataclasses
import json
from collections.abc import Mapping, Sequence

from bpc_cli.evaluation.metrics import METRICS, Metric
from bpc_cli.evaluation.statistics import MetricsLine, Spread, spread, whole
from bpc_cli.options.declare import option_fields, option_paths
from bpc_cli.options.schema import TrainConfig
from bpc_cli.reporting.reader import OptionValue, RunRecord
from bpc_cli.reporting.text import shortened

WEIGHT = "forward_energy_weight"
_LABEL_LOSS = "model.label_loss"
# A run may be resumed with other lengths, but its results are then other ones.
_LENGTHS = {"n_train_iters", "n_epochs"}
_SEED_OPTIONS = {"seed", "n_seeds"}
_DATA = "data.name"  # "auto" says less than what was used, by which runs are sorted anyway
# What a page shows of a run that a stranger may have made; results.csv has the rest.
_MOST_OPTIONS = 20
_LONGEST_VALUE = 80


@dataclasses.dataclass(frozen=True)
class Configuration:
    """Finished runs that differ in nothing but seeds.

    Attributes:
        data_set: the data set that they were trained and tested on.
        options: the options in which configurations of this report differ, and α_f.
        label_loss: their `model.label_loss`, on which the unit of a loss depends.
        runs: the runs.
        lines: the last test point's lines, a line per seed.
        spreads: each metric that runs are compared by, over seeds.
    """

    data_set: str
    options: dict[str, OptionValue]
    label_loss: str
    runs: list[RunRecord]
    lines: list[MetricsLine]
    spreads: dict[str, Spread]

    def options_but(self, *left_out: str) -> dict[str, OptionValue]:
        """Return its options, some left out."""
        return {name: value for name, value in self.options.items() if name not in left_out}

    @property
    def label(self) -> str:
        """Its options in words."""
        return describe(self.options)

    @property
    def caption(self) -> str:
        """Its data set and options in words."""
        return f"{self.data_set}: {self.label}" if self.label else self.data_set


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Runs sorted into configurations.

    Attributes:
        runs: all of them.
        configurations: those of finished runs, by data set, then by options.
        differing: the options in which finished runs differ, seeds left out.
        differing_at_all: the same of all runs.
        repeated: runs left out, as another run has the same configuration and seeds.
    """

    runs: list[RunRecord]
    configurations: list[Configuration]
    differing: list[str]
    differing_at_all: list[str]
    repeated: list[RunRecord]

    @property
    def data_sets(self) -> list[str]:
        """The data sets of finished runs."""
        return list(dict.fromkeys(each.data_set for each in self.configurations))

    @property
    def unfinished(self) -> list[RunRecord]:
        """The runs that are left out of every number and figure."""
        return [run for run in self.runs if run.status != "finished"]

    @property
    def metrics(self) -> list[Metric]:
        """The metrics by which these runs are compared, a test's first."""
        compared = [metric for metric in METRICS.values() if metric.compared]
        compared.sort(key=lambda metric: metric.measure is None)
        return [m for m in compared if any(m.name in each.spreads for each in self.configurations)]

    @property
    def label_loss(self) -> str | None:
        """The one `model.label_loss` of all configurations; None where they differ in it."""
        losses = {each.label_loss for each in self.configurations}
        return losses.pop() if len(losses) == 1 else None

    def best(self, data_set: str, metric: Metric) -> Configuration | None:
        """Return a data set's configuration of the best mean.

        Returns:
            None where there are fewer than two, or no direction is better.
        """
        rivals = [
            each
            for each in self.configurations
            if each.data_set == data_set and metric.name in each.spreads
        ]
        if metric.better is None or len(rivals) < 2:
            return None
        choose = max if metric.better == "higher" else min
        return choose(rivals, key=lambda each: each.spreads[metric.name].mean)


def compare(runs: Sequence[RunRecord]) -> Comparison:
    """Sort runs into configurations; only finished ones are included, and each seed once.

    Runs on different data sets are never of one configuration. Of several runs with the same
    configuration and seed, the last one given is included.
    """
    finished = [run for run in runs if run.is_finished]
    differing = _differing(finished)
    groups: dict[str, dict[int, tuple[RunRecord, MetricsLine]]] = {}
    for run in finished:
        key = json.dumps([run.data_set, [run.options.get(name) for name in differing]])
        for line in run.final:
            groups.setdefault(key, {})[whole(line, "seed")] = (run, line)
    included = {id(run) for by_seed in groups.values() for run, _ in by_seed.values()}
    configurations = [_configuration(by_seed, differing) for by_seed in groups.values()]
    configurations.sort(key=lambda each: (each.data_set, *map(_sortable, each.options.values())))
    return Comparison(
        runs=list(runs),
        configurations=configurations,
        differing=differing,
        differing_at_all=_differing([run for run in runs if run.options]),
        repeated=[run for run in finished if id(run) not in included],
    )


def describe(options: Mapping[str, OptionValue]) -> str:
    """Put options in words, such as "forward_energy_weight=0.001, model.depth=3"."""
    words = [f"{name}={in_words(value)}" for name, value in options.items()]
    more = len(words) - _MOST_OPTIONS
    return ", ".join([*words[:_MOST_OPTIONS], *([f"and {more} more"] if more > 0 else [])])


def in_words(value: OptionValue) -> str:
    """Write an option's value as one would give it, the middle of a long text left out."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else shortened(str(value), _LONGEST_VALUE)


def _configuration(
    by_seed: Mapping[int, tuple[RunRecord, MetricsLine]], differing: Sequence[str]
) -> Configuration:
    members = [by_seed[seed] for seed in sorted(by_seed)]
    runs = list({id(run): run for run, _ in members}.values())
    lines = [line for _, line in members]
    first = runs[0]
    return Configuration(
        data_set=first.data_set or "unknown",
        options={name: first.options.get(name) for name in dict.fromkeys([WEIGHT, *differing])},
        label_loss=str(first.options.get(_LABEL_LOSS)),
        runs=runs,
        lines=lines,
        spreads={
            metric.name: spread(numbers)
            for metric in METRICS.values()
            if metric.compared and len(numbers := _numbers_of(lines, metric)) == len(lines)
        },
    )


def _numbers_of(lines: Sequence[MetricsLine], metric: Metric) -> list[int | float]:
    return [number for line in lines if (number := line.get(metric.name)) is not None]


def _differing(runs: Sequence[RunRecord]) -> list[str]:
    """List the options in which runs differ, ours first; those left out that change no result."""
    changes_nothing = {_DATA, *_SEED_OPTIONS} | {
        path
        for path, field in option_fields(TrainConfig)
        if field.metadata["may_change"] and path not in _LENGTHS
    }
    found = dict.fromkeys(name for run in runs for name in run.options)
    ours = set(option_paths(TrainConfig))
    names = sorted(found, key=lambda name: name not in ours)
    return [
        name
        for name in names
        if name not in changes_nothing
        and len({json.dumps(run.options.get(name)) for run in runs}) > 1
    ]


def _sortable(value: OptionValue) -> tuple[int, float, str]:
    if isinstance(value, int | float):
        return (0, -float(value), "")
    return (1, 0.0, str(value))
