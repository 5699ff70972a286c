"""Comparing runs: which settings differ, and what the seeds of each say together."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from bpc_cli.evaluation.statistics import Spread, spread
from bpc_cli.options.declare import option_fields
from bpc_cli.options.schema import TrainConfig
from bpc_cli.reporting.reader import RunRecord

METRICS_COMPARED = ("test_accuracy", "generation_error", "gen_loss", "amort_loss")
WEIGHT = "forward_energy_weight"
# Lengths may change when a run goes on, and still make another setting of it.
_LENGTHS = {"n_train_iters", "n_epochs"}
_SEED_OPTIONS = {"seed", "n_seeds"}


@dataclasses.dataclass(frozen=True)
class Setting:
    """Finished runs that differ in nothing but seeds.

    Attributes:
        data_set: the data set that they were trained and tested on.
        options: the options in which settings of this report differ, and α_f.
        runs: the runs.
        lines: the last test point's lines, a line per seed.
        spreads: each metric over seeds.
    """

    data_set: str
    options: dict[str, Any]
    runs: list[RunRecord]
    lines: list[dict[str, Any]]
    spreads: dict[str, Spread]

    @property
    def others(self) -> dict[str, Any]:
        """The options other than α_f."""
        return {name: value for name, value in self.options.items() if name != WEIGHT}

    @property
    def label(self) -> str:
        """The setting in words."""
        return describe(self.options)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Runs sorted into settings.

    Attributes:
        runs: all of them.
        settings: those of finished runs, by data set, then by options.
        differing: the options in which finished runs differ, seeds left out.
        differing_at_all: the same of all runs.
        repeated: runs left out, as another run has the same setting and seeds.
    """

    runs: list[RunRecord]
    settings: list[Setting]
    differing: list[str]
    differing_at_all: list[str]
    repeated: list[RunRecord]

    @property
    def data_sets(self) -> list[str]:
        """The data sets of finished runs."""
        return list(dict.fromkeys(setting.data_set for setting in self.settings))

    @property
    def unfinished(self) -> list[RunRecord]:
        """The runs that no figure counts in."""
        return [run for run in self.runs if run.status != "finished"]


def compare(runs: Sequence[RunRecord]) -> Comparison:
    """Sort runs into settings; only finished ones count, and each seed once.

    Runs on different data sets are never of one setting. Of runs of the same setting and seed the
    last one given counts.
    """
    differing = _differing([run for run in runs if run.status == "finished" and run.final])
    groups: dict[str, dict[int, tuple[RunRecord, dict[str, Any]]]] = {}
    for run in runs:
        if run.status != "finished" or not run.final:
            continue
        key = json.dumps([run.data_set, [run.settings.get(name) for name in differing]])
        for line in run.final:
            groups.setdefault(key, {})[line["seed"]] = (run, line)
    counted = {id(run) for members in groups.values() for run, _ in members.values()}
    settings = [_setting(list(members.values()), differing) for members in groups.values()]
    settings.sort(key=lambda setting: (setting.data_set, *map(_sortable, setting.options.values())))
    repeated = [
        run for run in runs if run.status == "finished" and run.final and id(run) not in counted
    ]
    at_all = _differing([run for run in runs if run.settings])
    return Comparison(list(runs), settings, differing, at_all, repeated)


def describe(options: Mapping[str, Any]) -> str:
    """Put options in words, such as "forward_energy_weight=0.001, model.depth=3"."""
    return ", ".join(f"{name}={in_words(value)}" for name, value in options.items())


def in_words(value: Any) -> str:
    """Write an option's value as one would give it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _setting(members: Sequence[tuple[RunRecord, dict[str, Any]]], differing: list[str]) -> Setting:
    members = sorted(members, key=lambda member: member[1]["seed"])
    runs = list({id(run): run for run, _ in members}.values())
    lines = [line for _, line in members]
    names = list(dict.fromkeys([WEIGHT, *differing]))
    options = {name: runs[0].settings.get(name) for name in names}
    spreads = {
        metric: spread([line[metric] for line in lines])
        for metric in METRICS_COMPARED
        if all(isinstance(line.get(metric), int | float) for line in lines)
    }
    return Setting(runs[0].data_set or "unknown", options, runs, lines, spreads)


def _differing(runs: Sequence[RunRecord]) -> list[str]:
    """List the options in which runs differ, those left out that change no result."""
    changes_nothing = _SEED_OPTIONS | {
        path
        for path, field in option_fields(TrainConfig)
        if field.metadata["may_change"] and path not in _LENGTHS
    }
    names = dict.fromkeys(name for run in runs for name in run.settings)
    return [
        name
        for name in names
        if name not in changes_nothing
        and len({json.dumps(run.settings.get(name)) for run in runs}) > 1
    ]


def _sortable(value: Any) -> tuple[int, float, str]:
    if isinstance(value, int | float):
        return (0, -float(value), "")
    return (1, 0.0, str(value))
