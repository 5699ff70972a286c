"""Hydra plugins for sweeps: sweepers, and launchers of jobs.

Hydra takes plugins from the package `hydra_plugins` alone, so this is installed as
`hydra_plugins.bpc`.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, configure_log, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from bpc_cli.cli import sweeper
from bpc_cli.cli.cluster import launchers
from bpc_cli.cli.composing import Composer, announced
from bpc_cli.cli.jobs import Job
from bpc_cli.cli.search.sweeper import SearchSweeper

log = logging.getLogger(__name__)


class Sweeper(sweeper.Sweeper):
    """Hydra's basic sweeper and what ours adds to it, under a name that Hydra takes."""


class OptunaSweeper(SearchSweeper):
    """Searches with Optuna, under a name that Hydra takes."""


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
        composer = Composer(self._context.config_loader, self._config)
        composed: list[Job] = []
        returns = []
        for number, overrides in enumerate(announced(job_overrides), initial_job_idx):
            config = composer.compose(overrides)
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


class SlurmLauncher(launchers.SlurmLauncher):
    """Hands jobs to Slurm, under a name that Hydra takes."""


class LocalLauncher(launchers.LocalLauncher):
    """Starts jobs as processes of this machine, under a name that Hydra takes."""
