"""Jobs → runs: claim a directory, find what it resumes, build what its config names.

JAX is imported inside functions, so that rejecting a command line takes no time.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
from typing import TYPE_CHECKING

from bpc_cli.cli.jobs import Job, save_composed_config
from bpc_cli.errors import UserError
from bpc_cli.files import expanded
from bpc_cli.options.combinations import list_advice

if TYPE_CHECKING:
    from bpc_cli.runs.plan import Plan
    from bpc_cli.runs.resume import Start
    from bpc_cli.runs.run import Ensemble, Run


# Options that each process may have others of, or that the first one alone uses.
_OF_ONE = ("compute", "dir", "archive_dir", "resume", "logger")
_MOST_COMPARED = 1_000  # images


class Work:
    """What a job asks for, whatever its directory holds.

    Args:
        job: the job.
        n_together: how many jobs share the device's memory.
    """

    def __init__(self, job: Job, n_together: int):
        self.job = job
        self._n_together = n_together

    @functools.cached_property
    def plan(self) -> "Plan":
        """What its run is to do.

        Raises:
            UserError: if the data set is not to be had, or too small.
        """
        from bpc_cli.cli.build import build_plan, used_part, where_from
        from bpc_cli.data.datasets import load_dataset

        data = self.job.config.data
        dataset = load_dataset(data.name, **where_from(data))
        return build_plan(self.job.config, used_part(self.job.config, dataset))

    def digest(self) -> bytes:
        """Digest what all processes that train it together must have: options, data, software.

        Raises:
            UserError: if the data set is not to be had, or too small.
        """
        from bpc_cli.runs.summary import software_versions

        plan, data = self.plan, self.plan.dataset
        options = {name: value for name, value in plan.options.items() if name not in _OF_ONE}
        options["data"] = {name: v for name, v in options["data"].items() if name not in _OF_ONE}
        precision = self.job.config.compute.matmul_precision
        described = [options, precision, plan.n_devices, data.name, software_versions()]
        digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
        for array in (data.train_labels, data.train_images):
            some = array[:: max(1, len(array) // _MOST_COMPARED)]
            digest.update(f"{array.shape}".encode() + some.tobytes())
        return digest.digest()

    def build_ensemble(self) -> "Ensemble":
        """Build its models, not yet trained.

        Raises:
            UserError: if they cannot be, or exceed the memory.
        """
        from bpc_cli.cli.build import build_ensemble
        from bpc_cli.cli.limits import reject_what_exceeds_memory

        reject_what_exceeds_memory(self.job.config, self.plan, self._n_together)
        return build_ensemble(self.job.config, self.plan)


def open_run(work: Work) -> "Run | None":
    """Claim a run's directory, find what it resumes, and build what its config names.

    Returns:
        The run; None if its directory holds it, finished.

    Raises:
        UserError: if the config cannot be run; nothing is left behind then.
    """
    from bpc_cli.cli.build import list_changes
    from bpc_cli.cli.search.pruning import judge_of
    from bpc_cli.runs.clock import PhaseClock
    from bpc_cli.runs.directory import RunDirectory, claimed, is_finished
    from bpc_cli.runs.loggers.logger import Loggers
    from bpc_cli.runs.loggers.tracked_run import TrackedRun
    from bpc_cli.runs.loggers.trackers import logger_makers, require_extras
    from bpc_cli.runs.recorder import Recorder
    from bpc_cli.runs.resume import find_start, resume_states
    from bpc_cli.runs.run import Run

    job, config, directory = work.job, work.job.config, work.job.directory
    require_extras(config.logger)
    with contextlib.ExitStack() as closing:
        closing.enter_context(claimed(directory))
        clock = closing.enter_context(PhaseClock(job.began))
        other = None if config.resume is None else expanded(config.resume)
        start = find_start(directory, other, list_changes(config))
        plan = work.plan
        warnings = [*check_start(start, plan), *list_advice(config)]
        if start.iteration == plan.schedule.n_iters and is_finished(directory):
            print(
                f"{job.prefix}{os.path.relpath(directory)} holds this run, finished: nothing to do"
            )
            return None
        ensemble = work.build_ensemble()
        states = resume_states(start, ensemble.states, len(plan.seeds))
        run = closing.enter_context(
            RunDirectory(directory, start.metrics, start.metrics_bytes, job.prefix)
        )
        save_composed_config(job)
        for line in start.notices:
            run.report(line)
        for line in warnings:
            run.warn(line)
        tracked = TrackedRun(directory, plan.options, start.iteration + 1, job.name, job.sweep_name)
        loggers = Loggers(logger_makers(config.logger, tracked), run.warn)
        closing.callback(loggers.close)
        recorder = Recorder(run, clock, plan, start, loggers, judge_of(job))
        ensemble = dataclasses.replace(ensemble, states=states)
        return Run(plan, directory, start.iteration, ensemble, recorder, closing.pop_all())


def check_start(start: "Start", plan: "Plan") -> list[str]:
    """Check that a run can resume what it is to resume.

    Returns:
        Lines of warning: of another data set than was asked for, and of other software or devices.

    Raises:
        UserError: if the data set is another one, or more iterations are done than are wanted.
    """
    from bpc_cli.runs.device import device_kind
    from bpc_cli.runs.resume import check_fit
    from bpc_cli.runs.summary import software_versions

    other_software = check_fit(
        start, plan.dataset.name, software_versions(), device_kind(plan.n_devices)
    )
    if start.iteration > plan.schedule.n_iters:
        raise UserError(
            f"{plan.schedule.n_iters} iterations are wanted, and {start.iteration} are done: "
            "choose a larger n_train_iters, or another hydra.run.dir"
        )
    fallback = plan.dataset.fallback
    return [*([fallback] if fallback else []), *other_software]
