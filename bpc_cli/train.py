"""bpc-train: config → data → networks → chunks of steps → records."""

import contextlib
import dataclasses
import gc
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bpc_cli.cli.command_line import run_command
from bpc_cli.cli.jobs import Failure, Job, save_composed_config
from bpc_cli.errors import UserError
from bpc_cli.options.schema import TrainConfig

# JAX is imported inside functions, so that completing or refusing a command line takes no time.
if TYPE_CHECKING:
    from bpc_cli.data.datasets import Dataset
    from bpc_cli.runs.loggers import Logger
    from bpc_cli.runs.loop import Run


def main() -> None:
    """Run the `bpc-train` command."""
    run_command(
        "bpc-train",
        "train",
        TrainConfig,
        train,
        about="bpc-train: train a bidirectional predictive coding network.\n"
        "Writes metrics, samples, curves and checkpoints to a run directory under outputs/.",
    )


def train(jobs: Sequence[Job]) -> list[Failure]:
    """Train the networks of jobs, mostly of one, and leave a run directory for each.

    Several are trained as one program, as far as they have come equally far: they must be alike in
    all but the numbers that a step takes as arguments (`checking.program_options`).

    Returns:
        For each job what ended it before its time, or None.
    """
    with garbage_left_alone():
        from bpc_cli.runs.compilation import configure_jax
        from bpc_cli.runs.loop import groups_of, train_group

        configure_jax(**dataclasses.asdict(jobs[0].config.compute))
    failures: list[Failure] = [None] * len(jobs)
    runs: dict[int, Run] = {}
    with contextlib.ExitStack() as closing:
        for number, job in enumerate(jobs):
            try:
                with garbage_left_alone():
                    run = open_run(job, len(jobs))
            except (UserError, OSError) as error:
                failures[number] = error
                continue
            if run is not None:
                closing.push(run.closing)
                runs[number] = run
        for group in groups_of(list(runs.values())):
            train_group(group)
        for number, run in runs.items():
            failures[number] = run.failure
    return failures


def open_run(job: Job, n_together: int) -> "Run | None":
    """Claim a run's directory, find where it starts, and build what it names.

    Returns:
        The run; None if its directory holds it, finished.

    Raises:
        UserError: if the config cannot be run; nothing is left behind then.
    """
    from bpc_cli.cli.build import build
    from bpc_cli.core.ensembles import stack, take
    from bpc_cli.data.datasets import load_dataset, shortened
    from bpc_cli.runs.checkpoint import restore
    from bpc_cli.runs.clock import PhaseClock
    from bpc_cli.runs.directory import RunDirectory, claimed, is_finished
    from bpc_cli.runs.loggers import Loggers, require_extras
    from bpc_cli.runs.loop import Run
    from bpc_cli.runs.recorder import Records
    from bpc_cli.runs.resume import check_fit, find_start
    from bpc_cli.runs.summary import device_kind, software_versions

    config, directory = job.config, job.directory
    require_extras(tensorboard=config.logger.tensorboard, wandb=config.logger.wandb)
    with contextlib.ExitStack() as closing:
        closing.enter_context(claimed(directory))
        clock = closing.enter_context(PhaseClock(job.began))
        start = find_start(directory, config)
        dataset = load_dataset(
            config.data.name, data_dir=config.data.dir, archive_dir=config.data.archive_dir
        )
        dataset = shortened(dataset, config.data.n_train, config.data.n_validation)
        other_software = check_fit(start, dataset.name, software_versions(), device_kind())
        n_iters = n_iterations(config, len(dataset.train_images))
        refuse_fewer_iterations(n_iters, start.iteration)
        if start.iteration == n_iters and is_finished(directory):
            print(f"{os.path.relpath(directory)} holds this run, finished: nothing to do")
            return None
        refuse_what_exceeds_memory(config, dataset, n_together)
        rules, states = build(config, n_iters, dataset)
        if start.checkpoint is not None:
            saved = restore(start.checkpoint, states if config.n_seeds > 1 else take(states, 0))
            states = saved if config.n_seeds > 1 else stack([saved])
        run = closing.enter_context(RunDirectory(directory, start.metrics, start.metrics_bytes))
        save_composed_config(job)
        for line in start.notices:
            run.say(line)
        for line in [*([dataset.fallback] if dataset.fallback else []), *other_software]:
            run.warn(line)
        loggers = Loggers(logger_makers(config, directory, start.iteration + 1), run.warn)
        closing.callback(loggers.close)
        records = Records(run, clock, config, dataset, start, loggers)
        return Run(
            config,
            directory,
            dataset,
            n_iters,
            start.iteration,
            rules,
            states,
            records,
            closing.pop_all(),
        )


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


def logger_makers(config: TrainConfig, directory: Path, first: int) -> list[Callable[[], "Logger"]]:
    """List functions that make the loggers which a config asks for.

    Args:
        config: the run's checked config.
        directory: the run's.
        first: the first iteration that is to come.
    """
    from bpc_cli.runs.loggers import TensorBoard, WeightsAndBiases

    wanted, options = config.logger, dataclasses.asdict(config)
    makers: list[Callable[[], Logger]] = []
    if wanted.tensorboard:
        makers.append(lambda: TensorBoard(directory / "tensorboard", first))
    if wanted.wandb:
        makers.append(
            lambda: WeightsAndBiases(directory, wanted.wandb_project, wanted.wandb_mode, options)
        )
    return makers


def n_iterations(config: TrainConfig, n_examples: int) -> int:
    """Resolve the number of iterations from `n_epochs` or `n_train_iters`.

    Raises:
        UserError: if not one whole batch fits into the training set.
    """
    if config.batch_size > n_examples:
        raise UserError(
            f"batch_size must be at most {n_examples}, the size of the training set, "
            f"not {config.batch_size}"
        )
    if config.n_epochs is None:
        return config.n_train_iters
    return config.n_epochs * (n_examples // config.batch_size)


def refuse_fewer_iterations(n_iters: int, done: int) -> None:
    """Refuse to end a run before where it has got to.

    Raises:
        UserError: if it has done more iterations than are wanted.
    """
    if done > n_iters:
        raise UserError(
            f"{n_iters} iterations are wanted, and {done} are done: choose a larger n_train_iters, "
            "or another hydra.run.dir"
        )


def refuse_what_exceeds_memory(config: TrainConfig, dataset: "Dataset", n_together: int) -> None:
    """Refuse networks and batches that cannot fit in memory, before anything is allocated.

    Counts float32 weights, their gradients and two moments of each (as Adam keeps), and four
    copies of a batch's states.

    Raises:
        UserError: if that is more than the device has.
    """
    from bpc_cli.runs.memory import device_memory

    model, image_size = config.model, dataset.train_images.shape[1]
    hidden = model.depth - 1
    weights = dataset.n_classes * image_size
    if hidden:
        weights = model.width * (dataset.n_classes + image_size + (hidden - 1) * model.width)
    states = config.batch_size * (dataset.n_classes + hidden * model.width + image_size)
    needed = 4 * (4 * 2 * weights + 4 * states) * config.n_seeds * n_together
    available = device_memory()
    if needed > available:
        several = f", n_seeds={config.n_seeds}" if config.n_seeds > 1 else ""
        together = f" for {n_together} runs together" if n_together > 1 else ""
        raise UserError(
            f"model.width={model.width}, model.depth={model.depth}, "
            f"batch_size={config.batch_size}{several} need about {needed / 2**30:,.1f} GiB"
            f"{together}, and there are {available / 2**30:,.1f} GiB: reduce one of them"
            + (", or hydra.launcher.group_size" if together else "")
        )


if __name__ == "__main__":
    main()
