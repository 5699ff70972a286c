"""Launchers that hand jobs to a queue: Slurm's, or what stands for one on this machine."""

import logging
import shutil
import subprocess
from typing import Any

from hydra.errors import HydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from bpc_cli.cli.cluster.queued import QueueLauncher
from bpc_cli.cli.cluster.queues import Queue, local_queue, slurm_queue

log = logging.getLogger(__name__)

# What Slurm says of requests that it cannot meet now, and may be able to later.
_FOR_NOW = ("down", "busy")


class SlurmLauncher(QueueLauncher):
    """Hands jobs to Slurm, as an array."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra gives.

        Raises:
            HydraException: as for every queue.
        """
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        if not (shutil.which("sbatch") and shutil.which("srun")):
            raise HydraException("hydra/launcher=submitit_slurm needs Slurm: no sbatch found here")

    def _queue(self) -> Queue:
        return slurm_queue(lambda line: log.warning(f"WARNING: {line}"))

    def _executor(self, folder: str) -> Any:
        import submitit

        executor = submitit.SlurmExecutor(folder, max_num_timeout=self._max_num_timeout)
        parameters = dict(self._parameters)
        if "cpus_per_task" in parameters:  # which srun does not take over from sbatch
            parameters["srun_args"] = [f"--cpus-per-task={parameters['cpus_per_task']}"]
        executor.update_parameters(**executor._convert_parameters(parameters))
        # Slurm accepts requests that no node can meet, and never starts them; a test tells.
        script = executor._make_submission_file_text("true", "test")
        tested = subprocess.run(
            ["sbatch", "--test-only"], input=script, capture_output=True, text=True, timeout=60
        )
        if tested.returncode and not any(words in tested.stderr for words in _FOR_NOW):
            raise RuntimeError(tested.stderr)
        return executor


class LocalLauncher(QueueLauncher):
    """Starts jobs as processes of this machine, all at once, to try out what a cluster does."""

    def _queue(self) -> Queue:
        return local_queue()

    def _executor(self, folder: str) -> Any:
        import submitit

        executor = submitit.LocalExecutor(folder, max_num_timeout=self._max_num_timeout)
        executor.update_parameters(**self._parameters)
        return executor
