"""Processes that train together, on one machine or several: one leads, and the others follow.

The leader alone decides, tests and writes. Before each program that all processes must run it tells
the others which, and they run it with it. Without others, nothing is told.
"""

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jax.experimental.multihost_utils import broadcast_one_to_all, process_allgather

from bpc_cli.core.layout import fetch, wait_for_all
from bpc_cli.core.learning import TrainState

_END, _SEAT, _TAKE_OVER, _STEP, _FETCH = range(5)
NEXT_JOB, NO_JOB = 0, -1  # what follows an end; or the number of the signal that was its reason
Step = Callable[[int, int, TrainState], tuple[TrainState, Any, Any]]


class Seated(Protocol):
    """What makes a member of a program: what it trains, before anything is resumed."""

    @property
    def ensemble(self) -> Any:
        """Its models."""
        ...


class Team:
    """The processes of a training, as one of them sees it.

    Args:
        n_jobs: how many jobs there are, at most as many members of one program.

    Attributes:
        leads: whether this process decides and writes.
        is_alone: whether there is no other.
        is_lost: whether a step failed here, which the others still wait in.
        then: what follows when the leader lets go, `NEXT_JOB` or `NO_JOB`.
    """

    def __init__(self, n_jobs: int):
        self.leads = jax.process_index() == 0
        self.is_alone = jax.process_count() == 1
        self.is_lost = False
        self.then = NEXT_JOB
        self._n_jobs = n_jobs

    def agree(self, digests: Sequence[bytes]) -> list[bool]:
        """Compare digests of 32 bytes: say for each whether it is the same in all processes."""
        wait_for_all()
        own = np.frombuffer(b"".join(digests), np.int32).reshape(len(digests), 8)
        everyones = np.asarray(process_allgather(own)).reshape(-1, *own.shape)
        return (everyones == own).all(axis=(0, 2)).tolist()

    def seat(self, numbers: Sequence[int]) -> None:
        """Tell the others whose program comes next: a job's number for every seat."""
        self._tell(_SEAT, *numbers)

    def take_over(self, states: TrainState) -> TrainState:
        """Give the others the states that the next steps begin from."""
        self._tell(_TAKE_OVER)
        return states if self.is_alone else broadcast_one_to_all(states)

    def step(self, first: int, last: int) -> None:
        """Tell the others that these steps are taken."""
        self._tell(_STEP, first, last)

    def fetch(self, states: TrainState) -> TrainState:
        """Bring the states of all members to this host."""
        self._tell(_FETCH)
        return fetch(states)

    @contextlib.contextmanager
    def leading(self) -> Iterator[None]:
        """Let the others go when a `with` block ends, and tell them what follows.

        After a failed step they cannot be told: this process ends, and they soon after it.
        """
        try:
            yield
        except KeyboardInterrupt as error:
            self.then = getattr(error, "number", signal.SIGINT)
            raise
        finally:
            if self.is_lost:
                traceback.print_exc()
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(1)
            self._tell(_END, self.then)

    def follow(
        self,
        initial_states: Callable[[Sequence[int]], TrainState],
        make_stepper: Callable[[Sequence[int]], Step],
    ) -> int:
        """Run what the leader runs, until it lets go.

        Args:
            initial_states: joins the states of jobs, not yet trained.
            make_stepper: makes the function that takes the steps of jobs, given their numbers.

        Returns:
            What follows: `NEXT_JOB`, `NO_JOB`, or the number of the signal that stopped the leader.
        """
        states, take_steps = None, None
        numbers: list[int] = []
        while (order := self._hear())[0] != _END:
            kind, *told = order
            if kind == _SEAT:
                numbers, states = told, None
                take_steps = make_stepper(numbers)
            elif kind == _TAKE_OVER:
                states = broadcast_one_to_all(initial_states(numbers))
            elif kind == _STEP and take_steps is not None and states is not None:
                states, metrics, end = take_steps(told[0], told[1], states)
                fetch((metrics, end))
            elif kind == _FETCH:
                fetch(states)
        return order[1]

    def _tell(self, kind: int, *numbers: int) -> None:
        if not self.is_alone and self.leads:
            self._pass_on([kind, len(numbers), *numbers])

    def _hear(self) -> list[int]:
        kind, length, *numbers = self._pass_on([])
        return [kind, *numbers[:length]]

    def _pass_on(self, message: list[int]) -> list[int]:
        padded = np.zeros(2 + max(self._n_jobs, 2), np.int32)
        padded[: len(message)] = message
        return np.asarray(broadcast_one_to_all(padded)).tolist()
