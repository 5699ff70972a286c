"""The table of trackers: what each needs installed, and how its logger is made."""

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

from bpc_cli.errors import UserError
from bpc_cli.runs.loggers.logger import Logger
from bpc_cli.runs.loggers.mlflow import MLflow
from bpc_cli.runs.loggers.tensorboard import TensorBoard
from bpc_cli.runs.loggers.tracked_run import TrackedRun
from bpc_cli.runs.loggers.weights_and_biases import WeightsAndBiases


class LoggerOptions(Protocol):
    """Which trackers are asked for, and what each is told."""

    tensorboard: bool
    wandb: bool
    wandb_project: str
    wandb_mode: str
    mlflow: bool
    mlflow_uri: str | None
    mlflow_experiment: str


class Tracker(NamedTuple):
    """How a tracker is had. Its option and the extra that installs it have its name in the table.

    Attributes:
        packages: what has to be installed.
        make: makes its logger.
    """

    packages: tuple[str, ...]
    make: Callable[[TrackedRun, LoggerOptions], Logger]


TRACKERS = {
    "tensorboard": Tracker(
        ("tensorboardX",),
        lambda run, options: TensorBoard(run),
    ),
    "wandb": Tracker(
        ("wandb",),
        lambda run, options: WeightsAndBiases(run, options.wandb_project, options.wandb_mode),
    ),
    "mlflow": Tracker(
        ("mlflow", "sqlalchemy", "alembic"),
        lambda run, options: MLflow(run, options.mlflow_uri, options.mlflow_experiment),
    ),
}


def require_extras(options: LoggerOptions) -> None:
    """Reject trackers whose packages are not installed.

    Raises:
        UserError: naming the extra to install.
    """
    for name in _asked(options):
        if not all(map(importlib.util.find_spec, TRACKERS[name].packages)):
            raise UserError(
                f"logger.{name} needs the extra '{name}': pip install 'bpc-cli[{name}]'"
            )


def logger_makers(options: LoggerOptions, run: TrackedRun) -> dict[str, Callable[[], Logger]]:
    """Map the name of each tracker that is asked for to a function that makes its logger."""
    return {name: partial(TRACKERS[name].make, run, options) for name in _asked(options)}


def _asked(options: LoggerOptions) -> list[str]:
    return [name for name in TRACKERS if getattr(options, name)]
