"""Composed configs → jobs: checked, run, and each failure reported in one line."""

import contextlib
import dataclasses
import functools
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from bpc_cli.cli.cluster.requests import Request, has_finished
from bpc_cli.cli.sweeping import Sweep
from bpc_cli.errors import UserError, one_line
from bpc_cli.files import write_json
from bpc_cli.options.check import check_config, program_options
from bpc_cli.process import interruptible, prefixed_output, prepare_streams
from bpc_cli.runs.directory import SUMMARY
from bpc_cli.runs.signals import stop_with_parent

Failure = UserError | OSError | None


class Job(NamedTuple):
    """What one config of a command line asks for.

    Attributes:
        config: the config; as composed, and once checked its schema's dataclass.
        hydra: Hydra's own config of this job.
        began: when it began, in seconds since the epoch; for a process's first job, when the
            process did.
        prefix: what its lines on the console begin with: in a sweep, what is swept.
        label: in a sweep, what tells it from the other jobs, such as "α_f=0.1 seed=3".
    """

    config: Any
    hydra: Any
    began: float = 0.0
    prefix: str = ""
    label: str = ""

    @property
    def directory(self) -> Path:
        """Where the job's output goes."""
        return Path(self.hydra.runtime.output_dir)

    @property
    def sweep_name(self) -> str | None:
        """The name of its sweep's directory; None for a job of no sweep."""
        is_swept = self.hydra.mode == RunMode.MULTIRUN
        return Path(self.hydra.sweep.dir).absolute().name if is_swept else None

    @property
    def name(self) -> str:
        """What a tracker calls its run."""
        if self.sweep_name is None:
            return self.directory.absolute().name
        return self.label or f"{self.sweep_name} {self.hydra.job.num}"


class JobsFailed(Exception):
    """Jobs of a sweep failed; the others were run.

    Args:
        verdict: how many.
        reasons: why each did, a line each.
    """

    def __init__(self, verdict: str, reasons: Sequence[str] = ()):
        super().__init__(verdict)
        self.lines = [*reasons, verdict]


class EndOfSweep(BaseException):
    """Passes through Hydra, which goes on to the next job after an Exception.

    Args:
        reasons: why jobs have failed, a line each.
    """

    def __init__(self, reasons: Sequence[str]):
        self.lines = [*reasons, f"{len(reasons)} failed, which ended the sweep"]


class Task:
    """What Hydra calls with each composed config, in this process or, pickled, in another.

    Args:
        command: the command's name, which starts its error lines.
        schema: the dataclass that a composed config must fit.
        run: does the work of jobs that are alike in all but numbers, often of a single one, and
            returns for each what it failed by.
        debugging: whether failures are raised, to be seen whole.

    Attributes:
        command: the command's name.
        schema: the dataclass that a composed config must fit.
        is_dry: whether jobs are described, and not run.
        sweep: the sweep whose jobs this process or its children run.
        labels: what tells each job of a sweep from the others, also of one in a queue.
        failures: why jobs of this process failed, a line each.
        in_job: whether an exception comes from a job of this process.
        how_to_resume: for jobs that were interrupted, how to resume them.
    """

    _stopped = False  # whether a signal has ended a job of this process, a launcher's worker
    _watches = False  # whether this process, a launcher's worker, stops with its parent

    def __init__(
        self,
        command: str,
        schema: type,
        run: Callable[[Sequence[Job]], list[Failure]],
        *,
        debugging: bool,
    ):
        self.failures: list[str] = []
        self.in_job = False
        self.how_to_resume: list[str] = []
        self.command = command
        self.schema = schema
        self.is_dry = False
        self.sweep: Sweep | None = None
        self.labels: list[str] = []
        self._run = run
        self._debugging = debugging
        self._there_before = set(Path.cwd().iterdir())
        self._process = os.getpid()
        self._began = _process_began()

    def __call__(self, config: DictConfig) -> str | None:
        """Run one job; return why it failed, or None."""
        return self.run_all([Job(config, HydraConfig.get())])[0]

    def run_all(self, composed: Sequence[Job], group_size: int = 1) -> list[str | None]:
        """Check and run jobs, at once up to `group_size` of those that are alike.

        Returns:
            For each why it failed, or None.
        """
        self.in_job = True
        elsewhere = os.getpid() != self._process
        if elsewhere:
            prepare_streams()
            self._began = time.time()
            self._stop_with_parent(composed[0])
            if Task._stopped:
                return [f"{os.path.relpath(job.directory)}: not begun" for job in composed]
        reasons: list[str | None] = [None] * len(composed)
        checked: dict[int, Job] = {}
        try:
            for number, job in enumerate(composed):
                try:
                    config = check_config(job.config, self.schema)
                    label = self.labels[job.hydra.job.num] if self.labels else ""
                    checked[number] = Job(
                        config, job.hydra, prefix=self._prefix_of(job), label=label
                    )
                except UserError as error:
                    reasons[number] = self._report(job, error)
            for group in _groups_of(checked, group_size):
                failures = self._run([checked[n]._replace(began=self._began) for n in group])
                self._began = time.time()
                for number, failure in zip(group, failures, strict=True):
                    if getattr(failure, "is_planned", False):
                        print(f"{self._prefix_of(composed[number])}{failure}", flush=True)
                    elif failure is not None:
                        reasons[number] = self._report(composed[number], failure)
                if self.sweep and (line := self.sweep.progress()):
                    print(line, flush=True)
        except KeyboardInterrupt:
            if elsewhere:  # raised, it would end the jobs of other processes before they have saved
                Task._stopped = True
                return [f"{os.path.relpath(job.directory)}: interrupted" for job in composed]
            self.how_to_resume += [_how_to_resume(job) for job in composed if not _follows(job)]
            raise
        finally:
            for job in composed:
                _remove_what_hydra_made(job.directory, self._there_before)
        self.in_job = False
        return reasons

    def _stop_with_parent(self, job: Job) -> None:
        """Let a worker that this machine's launcher has started end when the launcher does."""
        if job.hydra.runtime.choices["hydra/launcher"] == "joblib" and not Task._watches:
            stop_with_parent(self._process)
            Task._watches = True

    def _report(self, job: Job, failure: UserError | OSError) -> str:
        """Report why a job failed; leave the reason where a job of a sweep has left nothing."""
        if self._debugging:
            raise failure
        reason = one_line(failure)
        line = f"{os.path.relpath(job.directory)}: {reason}"
        self.failures.append(line)
        fail(self.command, f"{self._prefix_of(job)}{reason}")
        is_sweep = job.hydra.mode == RunMode.MULTIRUN
        if is_sweep and not (job.directory.exists() and any(job.directory.iterdir())):
            with contextlib.suppress(OSError):
                job.directory.mkdir(parents=True, exist_ok=True)
                save_composed_config(job)
                write_json(job.directory / SUMMARY, {"status": "failed", "reason": reason})
        if getattr(failure, "ends_sweep", False) and os.getpid() == self._process:
            raise EndOfSweep(self.failures)
        return line

    def _prefix_of(self, job: Job) -> str:
        return self.sweep.prefix(job.hydra.job.num) if self.sweep else ""


def one_by_one(run: Callable[[Job], None]) -> Callable[[Sequence[Job]], list[Failure]]:
    """Make a function of one job one of several jobs, which returns their failures.

    Ctrl-C ends a job at once.
    """

    def run_all(jobs: Sequence[Job]) -> list[Failure]:
        failures: list[Failure] = []
        for job in jobs:
            try:
                with prefixed_output(job.prefix):
                    interruptible(functools.partial(run, job))
                failures.append(None)
            except (UserError, OSError) as error:
                failures.append(error)
        return failures

    return run_all


def fail(command: str, line: str) -> None:
    """Print an error line of a command: one line, whatever a user's words in it are."""
    sys.stdout.flush()
    print(f"{command}: {' '.join(line.splitlines())}", file=sys.stderr)


def save_composed_config(job: Job) -> None:
    """Write a job's config as composed to its directory's `.hydra`, in Hydra's own layout.

    Hydra itself would write it before the config has been checked, and into a directory that holds
    a finished run.
    """
    folder = job.directory / ".hydra"
    folder.mkdir(exist_ok=True)
    is_checked = dataclasses.is_dataclass(job.config)
    config = OmegaConf.structured(job.config) if is_checked else job.config
    OmegaConf.save(config, folder / "config.yaml")
    OmegaConf.save(OmegaConf.create({"hydra": job.hydra}), folder / "hydra.yaml")
    OmegaConf.save(job.hydra.overrides.task, folder / "overrides.yaml")


def is_same_job(job: Job) -> bool:
    """Tell whether a job's directory is of a job with the same options, which has finished."""
    overrides = tuple(sorted(job.hydra.overrides.task))
    return has_finished(Request(list(overrides), overrides, job.directory))


def _groups_of(jobs: Mapping[int, Job], size: int) -> Iterator[list[int]]:
    """Sort jobs by what shapes their programs, in groups of `size` at most."""
    if size == 1:
        yield from ([number] for number in jobs)
        return
    alike: dict[str, list[int]] = {}
    for number, job in jobs.items():
        alike.setdefault(program_options(job.config), []).append(number)
    for numbers in alike.values():
        for first in range(0, len(numbers), size):
            yield numbers[first : first + size]


def is_follower(coordinator: str | None, process: int | None) -> bool:
    """Tell whether another process leads this one's training, by `compute`'s options."""
    if coordinator == "slurm":
        return int(os.environ.get("SLURM_PROCID", "0")) > 0
    return coordinator is not None and bool(process)


def _follows(job: Job) -> bool:
    compute = job.config.get("compute", {})
    return is_follower(compute.get("coordinator"), compute.get("process"))


def _how_to_resume(job: Job) -> str:
    """Say what to add to a command whose job was interrupted, if it left anything."""
    option, chosen = "hydra.run.dir", job.directory
    if job.hydra.mode == RunMode.MULTIRUN:
        option, chosen = "hydra.sweep.dir", Path(job.hydra.sweep.dir)
    if not job.directory.exists() or not any(job.directory.iterdir()):
        return "nothing had been saved"
    return f"the same command with {option}={os.path.relpath(chosen)} resumes"


def _remove_what_hydra_made(directory: Path, there_before: set[Path]) -> None:
    """Remove the directory that Hydra made for a job which left nothing, and its empty parents.

    What was there before stays, and so does everything outside the working directory.
    """
    for folder in (directory, *directory.parents):
        outside = Path.cwd() not in folder.parents
        if folder in there_before or (outside and folder != directory):
            return
        try:
            folder.rmdir()
        except OSError:  # not empty
            return


def _process_began() -> float:
    """Tell when this process was started, in seconds since the epoch."""
    try:
        # psutil counts from a boot time in whole seconds, which is up to one second off.
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        after_boot = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - after_boot)
    except (OSError, AttributeError):
        return psutil.Process().create_time()
