"""What launchers that hand jobs to a queue have in common: submitting, recording, waiting.

The jobs are submitit's. What they need to be waited for by another process, hours later, is in the
sweep's directory (`bpc_cli.cli.cluster.queues`).
"""

import contextlib
import importlib.util
import io
import logging
import os
import secrets
import shutil
import signal
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import (
    JobReturn,
    JobStatus,
    configure_log,
    filter_overrides,
    run_job,
    setup_globals,
)
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from bpc_cli.cli.cluster.queues import (
    FOLDER,
    Queue,
    SubmittedJob,
    arrays_of,
    read_record,
    write_answer,
    write_record,
)
from bpc_cli.cli.cluster.requests import (
    Request,
    check_times,
    has_finished,
    in_short,
    in_the_queue,
    refuse_links_out,
    remove_unused,
)
from bpc_cli.cli.cluster.waiting import Watch, what_stays
from bpc_cli.cli.composing import Composer, announced
from bpc_cli.cli.jobs import fail
from bpc_cli.errors import UserError, one_line
from bpc_cli.runs.signals import StopOnce, deferred_signals

log = logging.getLogger(__name__)

# Where a job's first task listens: ports that nothing is registered for, by the job's number.
_FIRST_PORT, _N_PORTS = 61_440, 4_096
_ASKED = ("partition", "nodes", "cpus_per_task", "gpus_per_node", "mem_gb", "timeout_min")


def how_many(jobs: Collection[Any]) -> str:
    """Say how many jobs there are."""
    return f"{len(jobs)} job{'' if len(jobs) == 1 else 's'}"


class QueueLauncher(Launcher):
    """Hands jobs to a queue and waits for them, or for those that an earlier command has submitted.

    Args:
        submitit_folder: where submitit keeps what jobs read and write; `%j` is the job's id.
        max_num_timeout: how often a job may be timed out and put back into the queue.
        timeout_min: the minutes after which a job is timed out.
        signal_delay_s: how many seconds before that it is signalled.
        parameters: what else is asked of the queue; None: the queue's own default.
    """

    def __init__(
        self,
        submitit_folder: str,
        max_num_timeout: int,
        timeout_min: float,
        signal_delay_s: int,
        **parameters: Any,
    ):
        self._folder = str(submitit_folder)
        self._max_num_timeout = max_num_timeout
        self._parameters: dict[str, Any] = {
            name: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            for name, value in parameters.items()
            if value is not None
        }
        self._parameters |= {"timeout_min": timeout_min, "signal_delay_s": signal_delay_s}

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra gives.

        Raises:
            HydraException: if submitit or the queue is missing, or a job would be signalled before
                it has begun.
        """
        self._context, self._task, self._config = hydra_context, task_function, config
        if importlib.util.find_spec("submitit") is None:
            chosen = config.hydra.runtime.choices["hydra/launcher"]
            raise HydraException(
                f"hydra/launcher={chosen} needs the extra 'sweep': pip install 'bpc-cli[sweep]'"
            )
        check_times(self._parameters["timeout_min"], self._parameters["signal_delay_s"])

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Submit the jobs that are neither finished nor in the queue; wait for all.

        Raises:
            HydraException: if the queue refuses them, or holds other jobs for their directories.
        """
        setup_globals()
        hydra = self._config.hydra
        configure_log(hydra.hydra_logging, hydra.verbose)
        sweep = Path(hydra.sweep.dir)
        sweep.mkdir(parents=True, exist_ok=True)
        composer = Composer(self._context.config_loader, self._config)
        requests = {
            number: self._request(composer, number, list(overrides))
            for number, overrides in enumerate(announced(job_overrides), initial_job_idx)
        }
        queue = self._queue()
        try:
            jobs = self._submit_missing(sweep, queue, requests)
            failed = Watch(
                sweep,
                queue,
                {number: (job, requests[number].directory) for number, job in jobs.items()},
                log.info,
                lambda line: fail(self._task.command, line),
            ).until_all_have_ended()
        except UserError as error:
            raise HydraException(str(error)) from error
        except KeyboardInterrupt:
            again = f"the same command with hydra.sweep.dir={os.path.relpath(sweep)}"
            self._task.how_to_resume.append(what_stays(sweep, queue, again))
            raise
        return [
            JobReturn(request.arguments, status=JobStatus.COMPLETED, _return_value=failed.get(n))
            for n, request in requests.items()
        ]

    def __call__(
        self, overrides: list[str], number: int, answer: Path, singletons: dict[type, Singleton]
    ) -> None:
        """Run a job, in the process that the queue has started for it.

        The tasks of a job train together (`hydra.launcher.nodes`, `tasks_per_node`).

        A job that SIGTERM ends, as `scancel` sends it, saves its state first. It leaves no answer:
        the queue knows how it ended, and may start it again.
        """
        import submitit

        Singleton.set_state(singletons)
        setup_globals()
        config = self._context.config_loader.load_sweep_config(self._config, overrides)
        environment = submitit.JobEnvironment()
        with open_dict(config):
            config.hydra.job.id = environment.job_id
            config.hydra.job.num = number
        if environment.num_tasks > 1 and not _come_together(config, environment):
            return
        stop = StopOnce()
        signal.signal(signal.SIGTERM, stop)  # which submitit lets pass
        done = run_job(
            hydra_context=self._context,
            task_function=self._task,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        if stop.came:
            sys.exit(128 + signal.SIGTERM)
        answers = environment.global_rank == 0  # the first of a job's tasks does
        try:
            reason = done.return_value
        except Exception as error:
            if answers:
                write_answer(answer, f"{type(error).__name__}: {one_line(error)}")
            raise
        if answers:
            write_answer(answer, reason)
        if reason:
            sys.exit(1)

    def checkpoint(self, *arguments: Any) -> Any:
        """Say what a job that is put back into the queue does next: the same, and resumes."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, *arguments)

    def _queue(self) -> Queue:
        raise NotImplementedError

    def _executor(self, folder: str) -> Any:
        """Make submitit's executor, set up to submit jobs as they are configured."""
        raise NotImplementedError

    def _request(self, composer: Composer, number: int, arguments: list[str]) -> Request:
        config = composer.compose(arguments)
        with open_dict(config):
            config.hydra.job.num = number
            config.hydra.job.id = str(number)
        directory = Path(config.hydra.sweep.dir) / str(config.hydra.sweep.subdir)
        return Request(arguments, tuple(sorted(filter_overrides(arguments))), directory)

    def _submit_missing(
        self, sweep: Path, queue: Queue, requests: Mapping[int, Request]
    ) -> dict[int, SubmittedJob]:
        """Submit and record the jobs that are neither finished nor in the queue.

        Returns:
            All that are in the queue now.
        """
        refuse_links_out(sweep)
        record = read_record(sweep)
        waiting = in_the_queue(queue, record, requests)
        missing = {}
        for number, request in requests.items():
            if number not in waiting and has_finished(request):
                where = os.path.relpath(request.directory)
                log.info(f"{where} holds this run, finished: nothing to do")
            elif number not in waiting:
                missing[number] = request
        if waiting:
            ids = " ".join(arrays_of(job.id for job in waiting.values()))
            log.info(f"Waiting for {how_many(waiting)} of an earlier command: {queue.job} {ids}")
        if missing:
            with deferred_signals():  # so that no job is submitted and not recorded
                submitted = self._submit(sweep, queue, missing)
                write_record(sweep, record | submitted)
        else:
            submitted = {}
        return waiting | submitted

    def _submit(
        self, sweep: Path, queue: Queue, requests: Mapping[int, Request]
    ) -> dict[int, SubmittedJob]:
        token = secrets.token_hex(4)  # nobody can lay something before there for jobs to load
        answers = {number: f"{token}-{number}.json" for number in requests}
        arguments = [
            (request.arguments, n, (sweep / FOLDER / answers[n]).absolute(), Singleton.get_state())
            for n, request in requests.items()
        ]
        (sweep / FOLDER).mkdir(exist_ok=True)
        folder = self._folder.replace("%j", f"{token}/%j")
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it also raises
                jobs = self._executor(folder).map_array(self, *zip(*arguments, strict=True))
        except (RuntimeError, ValueError) as error:
            shutil.rmtree(folder.partition(token)[0] + token, ignore_errors=True)
            remove_unused(sweep)
            asked = (f"{name}={self._parameters.get(name, 'null')}" for name in _ASKED)
            raise UserError(
                f"the jobs cannot be submitted: {in_short(str(error))}: change hydra.launcher's "
                f"{' '.join(asked)}"
            ) from error
        ids = [job.job_id for job in jobs]
        array = " array" if "_" in ids[0] else ""
        log.info(f"Submitted {how_many(jobs)}: {queue.job}{array} {' '.join(arrays_of(ids))}")
        is_one_log = self._parameters.get("stderr_to_stdout")
        return {
            number: SubmittedJob(
                queue.name,
                job.job_id,
                requests[number].overrides,
                answers[number],
                str(job.paths.stdout if is_one_log else job.paths.stderr),
            )
            for number, job in zip(requests, jobs, strict=True)
        }


def _come_together(config: DictConfig, environment: Any) -> bool:
    """Let a job's tasks train together; say whether this one has anything to do."""
    if "coordinator" not in config.compute:  # of commands that do not train, the first task works
        return environment.global_rank == 0
    port = _FIRST_PORT + int(environment.raw_job_id) % _N_PORTS  # other jobs of its array differ
    config.compute.coordinator = f"{environment.hostnames[0]}:{port}"
    config.compute.n_processes = environment.num_tasks
    config.compute.process = environment.global_rank
    return True
