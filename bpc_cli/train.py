"""bpc-train: config → data → models → chunks of steps → records."""

import contextlib
import dataclasses
import functools
import gc
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from bpc_cli.cli.command_line import run_command
from bpc_cli.cli.commands import Command
from bpc_cli.cli.jobs import Failure, Job, one_by_one
from bpc_cli.errors import UserError, one_line
from bpc_cli.files import expanded
from bpc_cli.options.combinations import list_advice
from bpc_cli.options.groups import TrainingComputeConfig
from bpc_cli.options.schema import TrainConfig
from bpc_cli.process import interruptible

# JAX is imported inside functions, so that completing or rejecting a command line takes no time.
if TYPE_CHECKING:
    from bpc_cli.cli.opening import Work
    from bpc_cli.runs.run import Ensemble, Run
    from bpc_cli.runs.team import Team


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
        from bpc_cli.data.datasets import load_soon

        load_soon(jobs[0].config.data.name, data_dir=jobs[0].config.data.dir)
        try:
            interruptible(lambda: set_up(jobs[0].config.compute))
        except UserError as error:
            return [error] * len(jobs)
        from bpc_cli.cli.opening import Work, open_run
        from bpc_cli.runs.loop import train_together
        from bpc_cli.runs.run import group_alike
        from bpc_cli.runs.team import NO_JOB, Team
    works = [Work(job, len(jobs)) for job in jobs]
    team = Team(len(jobs))
    failures = reject_unlike(team, works)
    if not team.leads:
        try:
            follow(team, works)
        except (UserError, OSError) as error:
            ending = UserError(one_line(error))
            ending.ends_sweep = True  # the leader may not hear of it, and is waited for no more
            return [ending] * len(jobs)
        return failures
    runs: dict[int, Run] = {}
    with contextlib.ExitStack() as closing:
        closing.enter_context(team.leading())
        for number, work in enumerate(works):
            if failures[number] is not None:
                continue
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
            if trained := [number for number in group if number in runs]:
                team.seat([number if number in runs else trained[0] for number in group])
                train_together([runs.get(number) for number in group], team)
        for number, run in runs.items():
            failures[number] = run.failure
        if any(getattr(failure, "ends_sweep", False) for failure in failures):
            team.then = NO_JOB
    return failures


def reject_unlike(team: "Team", works: "Sequence[Work]") -> list[Failure]:
    """Compare with the other processes what they are to train, before anything is made.

    Returns:
        For each job why it cannot be trained, or None.
    """
    failures: list[Failure] = [None] * len(works)
    if team.is_alone:
        return failures
    digests = []
    for number, work in enumerate(works):
        try:
            digests.append(work.digest())
        except (UserError, OSError) as error:
            digests.append(bytes(32))
            failures[number] = error
    for number, is_alike in enumerate(team.agree(digests)):
        if not is_alike and failures[number] is None:
            failures[number] = UserError(
                "the processes of compute.coordinator differ in options, data or software: give "
                "all the same options but for compute.process, and the same data"
            )
    return failures


def describe_run(job: Job) -> None:
    """Print what a job would do, and leave nothing.

    Raises:
        UserError: if it cannot be run, or its data set has to be prepared first.
    """
    from bpc_cli.cli.build import build_plan, list_changes, used_part, where_from
    from bpc_cli.data.datasets import load_prepared

    config, data = job.config, job.config.data
    alone = {"coordinator": None, "n_processes": None, "process": None}
    set_up(dataclasses.replace(config.compute, compilation_cache=False, **alone))
    from bpc_cli.cli.dry_run import describe
    from bpc_cli.cli.limits import reject_what_exceeds_memory
    from bpc_cli.cli.opening import check_start
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


def set_up(compute: TrainingComputeConfig) -> None:
    """Import what training needs, which takes most of a short run's time, and set JAX up.

    Raises:
        UserError: if JAX has no device here, or the other processes are not to be found.
    """
    import bpc_cli.cli.limits
    import bpc_cli.runs.recorder  # noqa: F401
    from bpc_cli.runs.device import Processes, configure_jax

    processes = None
    if compute.coordinator is not None:
        by_slurm = compute.coordinator == "slurm"
        processes = Processes(
            None if by_slurm else compute.coordinator, compute.n_processes, compute.process
        )
    configure_jax(
        compilation_cache=compute.compilation_cache,
        matmul_precision=compute.matmul_precision,
        devices=compute.devices,
        processes=processes,
    )


def follow(team: "Team", works: "Sequence[Work]") -> None:
    """Run in this process what its leader runs of jobs, and write nothing.

    A signal to stop is the leader's to handle.

    Raises:
        UserError: if a job's models cannot be built here, or the leader has ended the sweep.
        Stopped: if a signal has stopped the leader.
    """
    from bpc_cli.core.ensembles import join
    from bpc_cli.runs.run import Member
    from bpc_cli.runs.signals import Stopped, deferred_signals
    from bpc_cli.runs.stepping import make_stepper
    from bpc_cli.runs.team import NEXT_JOB, NO_JOB

    @functools.cache
    def member(number: int) -> Member:
        return Member(works[number].plan, works[number].build_ensemble())

    with deferred_signals():
        then = team.follow(
            lambda numbers: join([member(number).ensemble.states for number in numbers]),
            lambda numbers: make_stepper([member(number) for number in numbers]),
        )
    if then == NO_JOB:
        raise UserError("the first process has ended the sweep")
    if then != NEXT_JOB:
        raise Stopped(then)


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
