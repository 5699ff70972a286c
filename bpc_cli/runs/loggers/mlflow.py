"""MLflow, by default in a database file without a server."""

import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bpc_cli.evaluation.metrics import TEST_METRICS
from bpc_cli.evaluation.statistics import MetricsLine
from bpc_cli.files import locked
from bpc_cli.runs.loggers.lasting_id import keep_id, read_id
from bpc_cli.runs.loggers.metrics import metrics_by_iteration
from bpc_cli.runs.loggers.tracked_run import TrackedRun, flat_options

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

DATABASE = "sqlite:///outputs/mlflow.db"
_MOST_METRICS = 1_000  # that MLflow takes at once
_MOST_PARAMS = 100
_LOCK_SECONDS = 60  # that a job waits while others write to the same file
_ID_LETTERS = 32
_STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "pruned": "KILLED"}
_TESTED = {metric.name for metric in TEST_METRICS}
# Unless the user has set them otherwise: nothing but the server that is asked for is talked to, and
# a run does not wait minutes for one that does not answer.
_ENVIRONMENT = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3"}


class MLflow:
    """Logs to MLflow: params, metrics by iteration, sample grids, the config.

    The id that the run has there is kept in its directory, so that a resumed run continues it.

    Args:
        run: the run.
        uri: a server's or a database's address; None: $MLFLOW_TRACKING_URI, else a file.
        experiment: the experiment there, made if missing.
    """

    def __init__(self, run: TrackedRun, uri: str | None, experiment: str):
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        address = uri or os.environ.get("MLFLOW_TRACKING_URI") or DATABASE
        self._client, experiment_id = _opened(address, experiment)
        path = run.directory / "mlflow_id"
        known = read_id(path, _ID_LETTERS)
        self._logged: dict[str, int] = {}  # the last iteration whose numbers of a kind are there
        if known and self._continues(known):
            self._id = known
            self._logged = {name: self._last_step(name) for name in ("gen_loss", *_TESTED)}
        else:
            self._id = keep_id(path, self._begin(run, experiment_id))

    def lines(self, lines: Sequence[MetricsLine]) -> None:
        """Log metrics, those of each iteration once; of several seeds each under its own name."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [
            Metric(name, value, now, iteration)
            for iteration, numbers in metrics_by_iteration(lines).items()
            for name, value in numbers.items()
            if iteration > self._last_logged(name)
        ]
        for first in range(0, len(metrics), _MOST_METRICS):
            self._client.log_batch(self._id, metrics=metrics[first : first + _MOST_METRICS])

    def test_point(
        self,
        iteration: int,
        picture: Path,
        histograms: Callable[[], Mapping[str, np.ndarray]],
    ) -> None:
        """Log the sample grid."""
        if picture.exists():
            self._client.log_artifact(self._id, str(picture), "samples")

    def close(self, status: str) -> None:
        """Log how the run ended."""
        self._client.set_terminated(self._id, _STATUS.get(status, "FAILED"))

    def _begin(self, run: TrackedRun, experiment_id: str) -> str:
        """Make a run there, and log all that stays the same in it."""
        from mlflow.entities import Param

        tags = {"directory": str(run.directory.absolute()), "mlflow.source.name": "bpc-train"}
        if run.sweep is not None:
            tags["sweep"] = run.sweep
        begun = self._client.create_run(experiment_id, run_name=run.name, tags=tags).info.run_id
        params = [Param(name, _text(value)) for name, value in flat_options(run.options).items()]
        for first in range(0, len(params), _MOST_PARAMS):
            self._client.log_batch(begun, params=params[first : first + _MOST_PARAMS])
        self._client.log_text(begun, run.config, "config.yaml")
        return begun

    def _continues(self, known: str) -> bool:
        """Take up a run that an earlier process has begun; tell whether it is still there."""
        from mlflow.exceptions import MlflowException

        try:
            is_there = self._client.get_run(known).info.lifecycle_stage == "active"
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
        if is_there:
            self._client.update_run(known, status="RUNNING")
        return is_there

    def _last_logged(self, name: str) -> int:
        of_all_seeds = name.partition("/")[0]
        return self._logged.get(of_all_seeds if of_all_seeds in _TESTED else "gen_loss", 0)

    def _last_step(self, name: str) -> int:
        history = self._client.get_metric_history(self._id, name)
        return max((metric.step for metric in history), default=0)


def _opened(address: str, experiment: str) -> "tuple[MlflowClient, str]":
    """Connect to a server or a database, and find the experiment there.

    A database file is made if missing, and artifacts are kept beside it. One job at a time does so:
    several at once would spoil it.
    """
    import mlflow.tracking
    from sqlalchemy.engine import make_url

    for name in ("mlflow", "alembic"):  # which report every step of making a database
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if not address.startswith("sqlite:"):
        client = mlflow.tracking.MlflowClient(address)
        return client, _experiment_id(client, experiment, None)
    url = make_url(address).update_query_dict({"timeout": str(_LOCK_SECONDS)})
    file = Path(url.database or "").absolute()
    with locked(file.with_name(f".{file.name}.lock"), when_taken=lambda owner: None):
        client = mlflow.tracking.MlflowClient(str(url))
        artifacts = (file.parent / "mlartifacts" / experiment).as_uri()
        return client, _experiment_id(client, experiment, artifacts)


def _experiment_id(client: "MlflowClient", name: str, artifacts: str | None) -> str:
    """Find an experiment, or make it."""
    from mlflow.exceptions import MlflowException

    if (known := client.get_experiment_by_name(name)) is None:
        try:
            return client.create_experiment(name, artifact_location=artifacts)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        known = client.get_experiment_by_name(name)  # another job was faster
    assert known is not None
    return known.experiment_id


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
