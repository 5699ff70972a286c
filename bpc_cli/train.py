"""bpc-train: config → data → models → chunks of steps → records."""

import contextlib
import dataclasses
import functools
import gc
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from bpc_cli.cli.command_line import run_command
from bpc_cli.cli.commands import Command
from bpc_cli.cli.jobs import Failure, Job, one_by_one, save_composed_config
from bpc_cli.errors import UserError
from bpc_cli.files import expanded
from bpc_cli.options.combinations import list_advice
from bpc_cli.options.groups import ComputeConfig
from bpc_cli.options.schema import TrainConfig
from bpc_cli.process import interruptible

# JAX is imported inside functions, so that completing or rejecting a command line takes no time.
if TYPE_CHECKING:
    from bpc_cli.runs.loop import Ensemble, Run
    from bpc_cli.runs.plan import Plan
    from bpc_cli.runs.resume import Start


def main() -> None:
    """Run the `bpc-train` command."""
    run_command(
        Command(
            "bpc-train",
            "train",
            TrainConfig,
            train,
            about="bpc-train [-m] [NAME=VALUE ...]: train a bidirectional predictive coding "
            "network.\nWrites metrics, samples, curves and checkpoints to a run directory under "
            "outputs/.",
            examples=(
                ("bpc-train data=digits forward_energy_weight=1e-3", "a first run, in seconds"),
                ("bpc-train experiment=best_mnist", "99 % on MNIST, and class means generated"),
                ("bpc-train -m forward_energy_weight=1,0.1,0.01 n_seeds=3", "a sweep of three"),
            ),
            dry_run=one_by_one(describe_run),
        )
    )


def train(jobs: Sequence[Job]) -> list[Failure]:
    """Train the models of jobs, mostly of one, and leave a run directory for each.

    Several are trained as one program: they must be alike in all but the numbers that a step takes
    as arguments (`options.check.program_options`). Which job is which member of which program
    depends on the jobs alone, not on what their directories hold.

    Returns:
        For each job what ended it before its time, or None.
    """
    with garbage_left_alone():
        try:
            interruptible(lambda: set_up(jobs[0].config.compute))
        except UserError as error:
            return [error] * len(jobs)
        from bpc_cli.runs.loop import group_alike, train_together
    failures: list[Failure] = [None] * len(jobs)
    works = [Work(job, len(jobs)) for job in jobs]
    runs: dict[int, Run] = {}
    with contextlib.ExitStack() as closing:
        for number, work in enumerate(works):
            try:
                with garbage_left_alone():
                    run = open_run(work)
            except (UserError, OSError) as error:
                failures[number] = error
                continue
            if run is not None:
                closing.push(run.closing)
                runs[number] = run
        for group in group_alike(list_programs(works, runs)):
            if not runs.keys().isdisjoint(group):
                train_together([runs.get(number) for number in group])
        for number, run in runs.items():
            failures[number] = run.failure
    return failures


def describe_run(job: Job) -> None:
    """Print what a job would do, and leave nothing.

    Raises:
        UserError: if it cannot be run, or its data set has to be prepared first.
    """
    from bpc_cli.cli.build import build_plan, list_changes, used_part, where_from
    from bpc_cli.data.datasets import load_prepared

    config, data = job.config, job.config.data
    set_up(dataclasses.replace(config.compute, compilation_cache=False))
    from bpc_cli.cli.dry_run import describe
    from bpc_cli.cli.limits import reject_what_exceeds_memory
    from bpc_cli.runs.resume import find_start

    dataset = load_prepared(data.name, **where_from(data))
    plan = build_plan(config, used_part(config, dataset))
    other = None if config.resume is None else expanded(config.resume)
    start = find_start(job.directory, other, list_changes(config))
    warnings = [*check_start(start, plan), *list_advice(config)]
    reject_what_exceeds_memory(config, plan, 1)
    print(describe(config, plan, job.directory, start.iteration))
    for line in (*start.notices, *(f"WARNING: {line}" for line in warnings)):
        print(line)


def set_up(compute: ComputeConfig) -> None:
    """Import what training needs, which takes most of a short run's time, and set JAX up.

    Raises:
        UserError: if JAX has no device here.
    """
    import bpc_cli.cli.limits
    import bpc_cli.runs.recorder  # noqa: F401
    from bpc_cli.runs.device import configure_jax

    configure_jax(**dataclasses.asdict(compute))


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

    def build_ensemble(self) -> "Ensemble":
        """Build its models, not yet trained.

        Raises:
            UserError: if they cannot be, or exceed the memory.
        """
        from bpc_cli.cli.build import build_ensemble
        from bpc_cli.cli.limits import reject_what_exceeds_memory

        reject_what_exceeds_memory(self.job.config, self.plan, self._n_together)
        return build_ensemble(self.job.config, self.plan)


def list_programs(works: "Sequence[Work]", runs: "Mapping[int, Run]") -> "dict[int, Ensemble]":
    """List what is compiled into each job's program, also of jobs that are not to be trained.

    A job that no run can be made of has none.
    """
    from bpc_cli.core.ensembles import static_of

    programs = {}
    for number, work in enumerate(works if runs else []):
        with contextlib.suppress(UserError, OSError):
            run = runs.get(number)
            programs[number] = static_of(run.ensemble if run else work.build_ensemble())
    return programs


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
    from bpc_cli.runs.loop import Run
    from bpc_cli.runs.recorder import Recorder
    from bpc_cli.runs.resume import find_start, resume_states

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


@contextlib.contextmanager
def garbage_left_alone() -> Iterator[None]:
    """Do not look for garbage in a `with` block, nor later among what was made in it.

    Imports and set-up make objects that live on; looking for garbage among them costs a short run a
    sixth of its time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


if __name__ == "__main__":
    from bpc_cli.console import bpc_train

    bpc_train()
