"""The sweeper that searches: `hydra/sweeper=optuna`."""

import contextlib
import importlib.util
import itertools
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from bpc_cli.cli.search.space import Space, read_space
from bpc_cli.cli.search.study import Study, read_options, values_in_words
from bpc_cli.cli.sweeper import Sweeper
from bpc_cli.cli.sweeping import Sweep
from bpc_cli.files import locked
from bpc_cli.runs.directory import read_summary

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

_LOCK = Path("study.lock")


class SearchSweeper(Sweeper):
    """Runs a job for each trial of an Optuna study, whose number is the job's.

    `hydra.sweeper` in a config explains the arguments.

    Raises:
        HydraException: if Optuna is missing, or the search is not one.
    """

    _searches = True

    def __init__(self, **options: Any):
        super().__init__(max_batch_size=None)
        self._given = options
        self._best = ""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra gives.

        Raises:
            HydraException: if Optuna is missing, or an option of the search cannot be, or nothing
                is trained.
        """
        if importlib.util.find_spec("optuna") is None:
            raise HydraException(
                "hydra/sweeper=optuna needs the extra 'sweep': pip install 'bpc-cli[sweep]'"
            )
        if task_function.command != "bpc-train":  # pyright: ignore[reportFunctionMemberAccess]
            raise HydraException("hydra/sweeper=optuna is for bpc-train alone")
        self._options = read_options(self._given)
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def _run_jobs(self, arguments: list[str]) -> list[JobReturn]:
        """Run the trials that are not finished, and ask for others until there are enough."""
        assert self.config is not None
        directory = Path(self.config.hydra.sweep.dir)
        space = read_space(self._parse(arguments))
        self._check([space.words(corner) for corner in space.corners()])
        directory.mkdir(parents=True, exist_ok=True)
        with locked(directory / _LOCK, self._refuse):
            study = Study(directory, space, self._options)
            OmegaConf.save(self.config, directory / "multirun.yaml")
            self._announce_search(directory, space, study)
            returns: list[JobReturn] = []
            for batch in self._batches(study):
                self._show_in_table(study, space)
                for trials in _consecutive(batch):
                    returns += self._launch(study, trials)
                for trial in batch:
                    study.tell(trial.number, _summary_in(self._directories[trial.number]))
            self._show_in_table(study, space)
            self._best = self._best_in_words(study)
        return returns

    def _batches(self, study: Study) -> "Iterator[list[FrozenTrial]]":
        """Choose the trials that run at once: first those of an earlier process, each once."""
        left = study.unfinished()
        while not self._signals:
            batch, left = left[: self._options.n_jobs], left[self._options.n_jobs :]
            while len(batch) < self._options.n_jobs and len(study.trials) < self._options.n_trials:
                batch.append(study.ask())
            if not batch:
                return
            yield batch

    def _launch(self, study: Study, trials: "Sequence[FrozenTrial]") -> Sequence[JobReturn]:
        assert self.launcher is not None
        jobs = [study.words_of(trial) for trial in trials]
        returns = self.launcher.launch(jobs, initial_job_idx=trials[0].number)
        for job in returns:
            _ = job.return_value  # raises what the job raised
        return returns

    def _describe(self, arguments: Sequence[str]) -> None:
        """Say what would be searched, and what is wrong with it; write nothing."""
        assert self.config is not None
        space = read_space(self._parse(arguments))
        self._check([space.words(corner) for corner in space.corners()])
        self._announce_search(Path(self.config.hydra.sweep.dir), space, None)

    def _announce_search(self, directory: Path, space: Space, study: Study | None) -> None:
        n_done = 0 if study is None else len(study.trials) - len(study.unfinished())
        aims = " and ".join(
            f"{'highest' if metric.better == 'higher' else 'lowest'} {metric.title}"
            for metric in self._options.metrics
        )
        done = f"; {n_done} finished already" if n_done else ""
        print(
            f"{self._options.n_trials} trials in {os.path.relpath(directory)} for the {aims}: "
            f"{space.in_words()}{done}",
            flush=True,
        )
        if not self._composer.compose(space.words(space.corners()[0])).data.n_validation:
            print(
                "WARNING: trials are compared on the test set, which flatters the best; "
                "data.n_validation=N holds N training images out to compare them on",
                file=sys.stderr,
            )

    def _show_in_table(self, study: Study, space: Space) -> None:
        """Let jobs know what they are called, and the table which there are."""
        trials = study.trials
        jobs = [study.words_of(trial) for trial in trials]
        self._directories = [self._composer.directory(job, n) for n, job in enumerate(jobs)]
        assert self.config is not None
        sweep = Sweep(
            Path(self.config.hydra.sweep.dir),
            jobs,
            self._directories,
            self._task.schema,
            searched=list(space.distributions),
            n_to_come=max(0, self._options.n_trials - len(jobs)),
        )
        self._let_know(sweep)

    def _print_table(self) -> None:
        super()._print_table()
        if self._best:
            print(self._best, flush=True)

    def _best_in_words(self, study: Study) -> str:
        best = study.best()
        if not best:
            return "no trial has finished"
        titles = "best" if len(best) == 1 else f"none is better than these {len(best)}"
        lines = [
            f"  job {trial.number}, {values_in_words(trial, self._options.metrics)}: "
            f"{shlex.join(['bpc-train', *study.words_of(trial)])}"
            for trial in best
        ]
        return "\n".join([f"{titles}:", *lines])

    def _refuse(self, owner: str) -> NoReturn:
        raise HydraException(
            f"this search is in use by {owner}: wait for it, or choose another hydra.sweep.dir"
        )


def _consecutive(trials: "Sequence[FrozenTrial]") -> "Iterator[list[FrozenTrial]]":
    """Sort trials into such as launchers take: with numbers that follow each other."""
    numbered = enumerate(sorted(trials, key=lambda trial: trial.number))
    for _, group in itertools.groupby(numbered, key=lambda pair: pair[1].number - pair[0]):
        yield [trial for _, trial in group]


def _summary_in(directory: Path) -> Any:
    with contextlib.suppress(OSError, ValueError):
        return read_summary(directory)
    return None
