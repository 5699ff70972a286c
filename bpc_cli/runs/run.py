"""Runs, as they are trained: what each is to do, its models, and who records it."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Integer

from bpc_cli.core.learning import TrainState
from bpc_cli.core.training import Training
from bpc_cli.errors import UserError
from bpc_cli.runs.plan import Plan
from bpc_cli.runs.recorder import Recorder


class Ensemble(eqx.Module):
    """The models of a run, one for each of its seeds, stacked along a leading axis.

    Attributes:
        training: how each trains.
        label_known: whose labels each knows; None: everyone's.
        trained_on: which training images each is trained on; None: all.
        states: models and optimiser states.
    """

    training: Training
    label_known: Bool[np.ndarray, "seeds examples"] | None
    trained_on: Integer[np.ndarray, "seeds chosen"] | None
    states: TrainState


class Run:
    """One of the runs that train together.

    Args:
        plan: what it is to do.
        directory: where its records go.
        iteration: the last iteration done.
        ensemble: its models.
        recorder: writes what happens in it.
        closing: closes its records, and lets go of its directory.

    Attributes:
        failure: what ended it before its time.
    """

    def __init__(
        self,
        plan: Plan,
        directory: Path,
        iteration: int,
        ensemble: Ensemble,
        recorder: Recorder,
        closing: contextlib.ExitStack,
    ):
        self.plan = plan
        self.directory = directory
        self.iteration = iteration
        self.ensemble = ensemble
        self.recorder = recorder
        self.closing = closing
        self.failure: UserError | OSError | None = None

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Turn an error of a user's raised in a `with` block into this run's failure.

        The other runs continue.
        """
        try:
            yield
        except (UserError, OSError) as error:
            self.failure = error
            self.closing.__exit__(type(error), error, error.__traceback__)


class Member(NamedTuple):
    """What makes a member of a program, whatever has become of its run.

    Attributes:
        plan: what its run is to do.
        ensemble: its models, not yet trained.
    """

    plan: Plan
    ensemble: Ensemble


def group_alike(programs: Mapping[int, Ensemble]) -> list[list[int]]:
    """Sort numbered runs into groups that can be trained by one program.

    Args:
        programs: what of each run's ensemble is compiled in (`static_of`).
    """
    groups: list[list[int]] = []
    for number, program in programs.items():
        alike = (group for group in groups if eqx.tree_equal(programs[group[0]], program))
        if (group := next(alike, None)) is None:
            groups.append([number])
        else:
            group.append(number)
    return groups
