"""Ending trials of a search early, at a test point, where others do better."""

import functools
from collections.abc import Callable
from pathlib import Path

from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf

from bpc_cli.cli.jobs import Job
from bpc_cli.cli.search.study import SearchOptions, is_hopeless, read_options
from bpc_cli.errors import UserError, one_line
from bpc_cli.evaluation.statistics import MetricsLine, whole


def judge_of(job: Job) -> Callable[[MetricsLine], bool]:
    """Make what tells at a test point whether a job's run is hopeless.

    No run is where the job is no trial, or trials are not pruned.
    """
    is_trial = job.hydra.runtime.choices.get("hydra/sweeper") == "optuna"
    if not is_trial or job.hydra.mode != RunMode.MULTIRUN:
        return _never
    given = OmegaConf.to_container(job.hydra.sweeper)
    assert isinstance(given, dict)
    options = read_options({str(name): value for name, value in given.items()})
    if options.pruner == "none":
        return _never
    directory = Path(job.hydra.sweep.dir)
    return functools.partial(_judge, directory, int(job.hydra.job.num), options)


def _never(line: MetricsLine) -> bool:
    return False


def _judge(directory: Path, number: int, options: SearchOptions, line: MetricsLine) -> bool:
    """Judge by a test point's metrics.

    Raises:
        UserError: if the run does not measure what is searched for, or the search's file cannot be
            read.
    """
    value = line.get(options.metrics[0].name)
    if value is None:
        raise UserError(
            f"hydra.sweeper.objective={options.objective} is not measured in this run's mode"
        )
    try:
        return is_hopeless(directory, number, options, whole(line, "iteration"), value)
    except (HydraException, OSError, LookupError) as error:
        raise UserError(f"the search cannot be consulted: {one_line(error)}") from error
