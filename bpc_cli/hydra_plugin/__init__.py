"""Hydra plugins for sweeps: jobs run as one program, and a list of those that failed.

Hydra takes plugins from the package `hydra_plugins` alone, so this is installed as
`hydra_plugins.bpc`.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, configure_log, filter_overrides, run_job, setup_globals
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException

from bpc_cli.errors import one_line
from bpc_cli.jobs import Job, JobsFailed

log = logging.getLogger(__name__)


class Sweeper(BasicSweeper):
    """Hydra's basic sweeper, which in the end lists the jobs that failed, whoever ran them.

    Raises:
        JobsFailed: if any did.
    """

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra gives.

        Raises:
            HydraException: if the launcher that is asked for is not installed.
        """
        try:
            super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        except RuntimeError as error:
            if "Unknown plugin class" not in str(error):
                raise
            chosen = config.hydra.runtime.choices["hydra/launcher"]
            raise HydraException(
                f"hydra/launcher={chosen} needs the extra 'sweep': pip install 'bpc-cli[sweep]'"
            ) from error
        self._task = task_function

    def sweep(self, arguments: list[str]) -> Any:
        """Run a job for each combination of values."""
        try:
            returns = super().sweep(arguments)
        except (HydraException, OmegaConfBaseException, OSError):
            raise
        except Exception as error:
            if getattr(self._task, "in_job", False) or self.config is None:
                raise
            directory = os.path.relpath(self.config.hydra.sweep.dir)
            raise JobsFailed(
                f"a job ended without an answer ({one_line(error)}); the same command with "
                f"hydra.sweep.dir={directory} runs what is unfinished"
            ) from error
        jobs = [job for batch in returns for job in batch]
        if reasons := [job.return_value for job in jobs if job.return_value]:
            raise JobsFailed(f"{len(reasons)} of {len(jobs)} jobs failed: {'; '.join(reasons)}")
        return returns


class VmapLauncher(Launcher):
    """Runs jobs that differ only in numbers as one vectorised program.

    Each gets the run directory that the basic launcher would have given it.

    Args:
        group_size: the most runs in one program, which bounds its memory.
    """

    def __init__(self, group_size: int):
        self._group_size = group_size

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra gives."""
        self._context, self._task, self._config = hydra_context, task_function, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Compose all jobs, then run them in groups."""
        setup_globals()
        hydra = self._config.hydra
        configure_log(hydra.hydra_logging, hydra.verbose)
        Path(hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        log.info(f"Launching {len(job_overrides)} jobs, up to {self._group_size} in one program")
        composed: list[Job] = []
        returns = []
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            log.info(f"\t#{number} : {' '.join(filter_overrides(overrides))}")
            config = self._context.config_loader.load_sweep_config(self._config, list(overrides))
            with open_dict(config):
                config.hydra.job.id = str(number)
                config.hydra.job.num = number
            returns.append(
                run_job(
                    hydra_context=self._context,
                    task_function=lambda config: composed.append(Job(config, HydraConfig.get())),
                    config=config,
                    job_dir_key="hydra.sweep.dir",
                    job_subdir_key="hydra.sweep.subdir",
                )
            )
        for job, reason in zip(
            returns, self._task.run_all(composed, self._group_size), strict=True
        ):
            job.return_value = reason
        return returns
