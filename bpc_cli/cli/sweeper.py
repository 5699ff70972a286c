"""Sweeps: a job for each combination of values, and what is said of them all."""

import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

import psutil
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from bpc_cli.cli.composing import Composer, SweepLoader, announced
from bpc_cli.cli.jobs import EndOfSweep, JobsFailed, is_follower
from bpc_cli.cli.sweeping import Sweep
from bpc_cli.errors import UserError, one_line
from bpc_cli.options.check import check_config
from bpc_cli.runs.signals import Stopped

_IN_ORDER = ("basic", "vmap")  # launchers of this process's jobs, one after another


class Sweeper(BasicSweeper):
    """Hydra's basic sweeper, which says what it will run, and in the end how each job has ended.

    Raises:
        JobsFailed: if any did.
    """

    _searches = False  # whether the jobs depend on how earlier ones ended

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
        self._launcher_name = str(config.hydra.runtime.choices["hydra/launcher"])
        self._composer = Composer(hydra_context.config_loader, config)
        if self.launcher and self._launcher_name == "basic":  # composes each job when it runs
            loader = SweepLoader(hydra_context.config_loader, self._composer)
            self.launcher.setup(
                hydra_context=HydraContext(loader, hydra_context.callbacks),
                task_function=task_function,
                config=config,
            )
        self._sweep: Sweep | None = None
        self._signals: list[int] = []
        self._is_follower = False

    def sweep(self, arguments: list[str]) -> None:
        """Run a job for each combination of values.

        Raises:
            HydraException: if several processes are to train together, and would choose different
                jobs.
            Stopped: if a signal has ended the processes that jobs ran in.
        """
        if self._task.is_dry:
            return self._describe(arguments)
        given = {name: value for name, _, value in (word.partition("=") for word in arguments)}
        coordinator, process = given.get("compute.coordinator"), given.get("compute.process", "")
        if coordinator and (self._searches or self._launcher_name not in _IN_ORDER):
            raise HydraException(
                "compute.coordinator lets processes train the same jobs in the same order: choose "
                f"hydra/sweeper=basic, and hydra/launcher={' or '.join(_IN_ORDER)}"
            )
        self._is_follower = is_follower(coordinator, int(process) if process.isdecimal() else None)
        if not self._is_follower:
            return self._sweep_here(arguments)
        with tempfile.TemporaryDirectory() as folder:  # the leader alone writes
            self._move_to(folder)
            self._sweep_here(arguments)

    def _move_to(self, folder: str) -> None:
        assert self.config is not None
        with read_write(self.config.hydra), open_dict(self.config.hydra):
            self.config.hydra.sweep.dir = folder
            self.config.hydra.overrides.hydra.append(f"hydra.sweep.dir={folder}")

    def _sweep_here(self, arguments: list[str]) -> None:
        assert self.config is not None
        again = f"hydra.sweep.dir={os.path.relpath(self.config.hydra.sweep.dir)}"
        in_processes = self._launcher_name == "joblib"
        try:
            with contextlib.ExitStack() as waiting:
                if in_processes:
                    self._signals = waiting.enter_context(signals_left_to_jobs())
                jobs = self._run_jobs(arguments)
        except (HydraException, OmegaConfBaseException, JobsFailed, OSError):
            raise
        except EndOfSweep:
            self._print_table()
            raise
        except KeyboardInterrupt:
            if not (self._task.in_job or self._task.how_to_resume):
                self._task.how_to_resume.append(f"the same command with {again} resumes")
            raise
        except Exception as error:
            if self._task.in_job:
                raise
            raise JobsFailed(
                f"a job ended without an answer ({one_line(error)}); the same command with {again} "
                "runs what is unfinished"
            ) from error
        if self._signals:
            self._task.how_to_resume.append(f"the same command with {again} resumes")
            raise Stopped(self._signals[0])
        self._print_table()
        if reasons := [job.return_value for job in jobs if job.return_value]:
            verdict = f"{len(reasons)} of {len(jobs)} jobs failed"
            if self._launcher_name.startswith("submitit"):  # which has said why
                raise JobsFailed(f"{verdict}: {'; '.join(reasons)}")
            raise JobsFailed(verdict, reasons)

    def _run_jobs(self, arguments: list[str]) -> list[JobReturn]:
        """Run all jobs, and return what has come of each."""
        return [job for batch in super().sweep(arguments) for job in batch]

    def _describe(self, arguments: Sequence[str]) -> None:
        """List the jobs, and what is wrong with any; write nothing.

        Raises:
            JobsFailed: if something is.
        """
        self.overrides = [
            [job for batch in self.split_arguments(self._parse(arguments), None) for job in batch]
        ]
        (jobs,) = self.overrides
        self.validate_batch_is_legal(jobs)
        self._print_table()
        self._check(jobs)

    def _parse(self, arguments: Sequence[str]) -> list[Override]:
        assert self.hydra_context is not None
        parser = OverridesParser.create(self.hydra_context.config_loader)
        return parser.parse_overrides([*self._parse_config(), *arguments])

    def _check(self, jobs: Sequence[Sequence[str]]) -> None:
        """Check that jobs' options are such as can be.

        Raises:
            JobsFailed: if one's are not.
        """
        reasons = []
        for number, job in enumerate(jobs):
            config = self._composer.compose(job)
            with open_dict(config):
                del config["hydra"]
            try:
                check_config(config, self._task.schema)
            except UserError as error:
                reasons.append(f"job {number}: {one_line(error)}")
        if reasons:
            raise JobsFailed(f"{len(reasons)} of {len(jobs)} jobs cannot be run", reasons)

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Check that all jobs can be composed, before the first of them runs.

        Raises:
            HydraException, OmegaConfBaseException: if one cannot.
        """
        for job in announced(batch):
            self._composer.check(job)
        if self._sweep is None and not self._is_follower:
            self._announce()

    def _announce(self) -> None:
        """Say what the sweep will run, and let its jobs know what they are called."""
        assert self.config is not None and self.overrides is not None
        jobs = [job for batch in self.overrides for job in batch]
        directories = [self._composer.directory(job, number) for number, job in enumerate(jobs)]
        sweep_directory = Path(self.config.hydra.sweep.dir)
        sweep = Sweep(sweep_directory, jobs, directories, self._task.schema)
        self._let_know(sweep)
        print(sweep.announcement(), flush=True)

    def _let_know(self, sweep: Sweep) -> None:
        """Let jobs know what they are called."""
        self._sweep = sweep
        self._task.labels = sweep.labels
        if not self._launcher_name.startswith("submitit"):  # whose jobs have a log each
            self._task.sweep = sweep

    def _print_table(self) -> None:
        if self._sweep is not None:
            print(self._sweep.table(), flush=True)


@contextlib.contextmanager
def signals_left_to_jobs() -> Iterator[list[int]]:
    """Wait in a `with` block for the processes of jobs, which a signal tells to save and stop.

    Ctrl-C reaches them by itself; SIGTERM is passed on.

    Yields:
        The signals that have come.
    """
    signals: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        if number != signal.SIGINT:
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    process.send_signal(number)

    previous = {each: signal.signal(each, pass_on) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)
