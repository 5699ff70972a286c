"""A search's memory: an Optuna study in a file of the sweep's directory."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from hydra.errors import HydraException

from bpc_cli.cli.search.space import Space
from bpc_cli.errors import one_line
from bpc_cli.evaluation.metrics import METRICS, Metric
from bpc_cli.files import check_inside

# Optuna is imported inside functions: most commands do without, and it takes a second.
if TYPE_CHECKING:
    from optuna import Study as OptunaStudy
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

STUDY = Path("study.journal")
_NAME = "bpc"
_OBJECTIVES = {
    "accuracy": ("test_accuracy",),
    "generation_error": ("generation_error",),
    "reconstruction_error": ("reconstruction_error",),
    "both": ("test_accuracy", "generation_error"),
}
SAMPLERS = ("tpe", "random", "nsgaii")
PRUNERS = ("median", "none")
_TRIALS_BEFORE_PRUNING = 4


class SearchOptions(NamedTuple):
    """How a search goes; `hydra.sweeper` in a config explains each."""

    objective: str
    n_trials: int
    n_jobs: int
    sampler: str
    seed: int
    pruner: str
    min_iterations: int

    @property
    def metrics(self) -> list[Metric]:
        """What is to become good."""
        return [METRICS[name] for name in _OBJECTIVES[self.objective]]


def read_options(given: Mapping[str, Any]) -> SearchOptions:
    """Check the options of a search.

    Raises:
        HydraException: naming one that cannot be.
    """
    for name, allowed in (
        ("objective", tuple(_OBJECTIVES)),
        ("sampler", SAMPLERS),
        ("pruner", (*PRUNERS, None)),
    ):
        if given[name] not in allowed:
            words = ", ".join("null" if word is None else word for word in allowed)
            raise HydraException(f"hydra.sweeper.{name} must be one of {words}, not {given[name]}")
    for name, least in (("n_trials", 1), ("n_jobs", 1), ("seed", 0), ("min_iterations", 0)):
        value = given[name]
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise HydraException(
                f"hydra.sweeper.{name} must be a whole number from {least}, not {value}"
            )
    has_one = len(_OBJECTIVES[given["objective"]]) == 1
    if given["pruner"] == "median" and not has_one:
        raise HydraException("hydra.sweeper.pruner=median needs one objective; 'both' are two")
    pruner = given["pruner"] or ("median" if has_one else "none")
    names = [name for name in SearchOptions._fields if name != "pruner"]
    return SearchOptions(**{name: given[name] for name in names}, pruner=pruner)


class Study:
    """A search's trials: what each tries, and what has come of it.

    Whoever opens the same file, in this process or another, sees the same trials. What a trial
    tries depends on the seed and the trials before it, not on how often a search was interrupted.

    Args:
        directory: the sweep's; the file is made if missing.
        space: what is searched.
        options: how.

    Raises:
        HydraException: if the file holds another search, or none.
    """

    def __init__(self, directory: Path, space: Space, options: SearchOptions):
        self._space, self._options = space, options
        self._study = _open(directory, options, make=True)
        asked = {"space": space.key(), "objective": options.objective}
        known = {name: self._study.user_attrs.get(name) for name in asked}
        if not self._study.user_attrs:
            for name, value in asked.items():
                self._study.set_user_attr(name, value)
        elif known != asked:
            raise HydraException(
                f"{directory / STUDY} holds a search of other values, with other options or for "
                "another objective: choose another hydra.sweep.dir"
            )

    @property
    def trials(self) -> "list[FrozenTrial]":
        """All trials, in the order of their numbers."""
        return self._study.get_trials(deepcopy=False)

    def unfinished(self) -> "list[FrozenTrial]":
        """List the trials of which nothing has come yet."""
        return [trial for trial in self.trials if not trial.state.is_finished()]

    def ask(self) -> "FrozenTrial":
        """Begin another trial."""
        entropy = [self._options.seed, len(self.trials)]
        (seed,) = np.random.SeedSequence(entropy).generate_state(1)
        self._study.sampler = _sampler(self._options.sampler, int(seed))
        asked = self._study.ask(self._space.distributions)
        return self.trials[asked.number]

    def words_of(self, trial: "FrozenTrial") -> list[str]:
        """Write a trial as a job's words."""
        return self._space.words(trial.params)

    def tell(self, number: int, summary: Mapping[str, Any] | None) -> None:
        """Take what has come of a trial from its run's summary; one that can go on stays open."""
        from optuna.trial import TrialState

        status = None if summary is None else summary.get("status")
        final = (summary or {}).get("final") or {}
        values: list[Any] = [final.get(metric.name) for metric in self._options.metrics]
        if status == "finished" and all(isinstance(value, int | float) for value in values):
            self._study.tell(number, values, skip_if_finished=True)
        elif status == "pruned":
            self._study.tell(number, state=TrialState.PRUNED, skip_if_finished=True)
        elif status is not None and status not in ("interrupted", "running"):
            self._study.tell(number, state=TrialState.FAIL, skip_if_finished=True)

    def best(self) -> "list[FrozenTrial]":
        """List the best trials: one, or of two objectives those that none is better than."""
        from optuna.trial import TrialState

        if not any(trial.state == TrialState.COMPLETE for trial in self.trials):
            return []
        return (
            self._study.best_trials if len(self._options.metrics) > 1 else [self._study.best_trial]
        )


def is_hopeless(
    directory: Path, number: int, options: SearchOptions, iteration: int, value: float
) -> bool:
    """Report a trial's metric at a test point, and tell whether to prune it.

    Args:
        directory: the sweep's.
        number: the trial's.
        options: how the search goes.
        iteration: the last one done.
        value: what is to become good, so far.
    """
    from optuna.trial import Trial

    study = _open(directory, options, make=False)
    trial = Trial(study, study.get_trials(deepcopy=False)[number]._trial_id)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # after a kill, a test point is reported again
        trial.report(value, iteration)
    return trial.should_prune()


def _open(directory: Path, options: SearchOptions, *, make: bool) -> "OptunaStudy":
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    directions = ["maximize" if m.better == "higher" else "minimize" for m in options.metrics]
    with _explained(directory / STUDY):
        path = check_inside(directory, directory / STUDY)
        if not (make or path.exists()):
            raise FileNotFoundError("it is gone")
        storage = JournalStorage(JournalFileBackend(str(path)))
        sampler, pruner = _sampler(options.sampler, options.seed), _pruner(options)
        names = optuna.get_all_study_names(storage)
        if _NAME in names:
            return optuna.load_study(
                study_name=_NAME, storage=storage, sampler=sampler, pruner=pruner
            )
        return optuna.create_study(
            study_name=_NAME,
            storage=storage,
            sampler=sampler,
            pruner=pruner,
            directions=directions,  # pyright: ignore[reportArgumentType]
        )


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Explain in one line what is wrong with a study's file."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # whatever Optuna makes of what is no journal
        raise HydraException(
            f"{path} is no search's file ({type(error).__name__}: {one_line(error)}): choose "
            "another hydra.sweep.dir"
        ) from error


def _sampler(name: str, seed: int) -> "BaseSampler":
    from optuna import samplers

    if name == "random":
        return samplers.RandomSampler(seed=seed)
    if name == "nsgaii":
        return samplers.NSGAIISampler(seed=seed)
    return samplers.TPESampler(seed=seed)


def _pruner(options: SearchOptions) -> "BasePruner":
    from optuna import pruners

    if options.pruner == "none":
        return pruners.NopPruner()
    return pruners.MedianPruner(
        n_startup_trials=_TRIALS_BEFORE_PRUNING, n_warmup_steps=options.min_iterations
    )


def values_in_words(trial: "FrozenTrial", metrics: Sequence[Metric]) -> str:
    """Say what a trial has reached."""
    return ", ".join(
        f"{metric.title} {metric.in_words(value)}"
        for metric, value in zip(metrics, trial.values, strict=True)
    )
