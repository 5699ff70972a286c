"""Waiting for jobs in a queue: a line for each change of state, each result and each failure."""

import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from bpc_cli.cli.cluster.queues import (
    Queue,
    SubmittedJob,
    is_alive,
    printable,
    read_answer,
    read_record,
)
from bpc_cli.errors import cut_off
from bpc_cli.runs.directory import read_summary
from bpc_cli.runs.signals import StopOnce

LONGEST_LINE = 180  # of a failure, with room for the command's name
_SECONDS_BETWEEN_LOOKS = 0.3  # at answers
_MOST_SECONDS_BETWEEN_QUESTIONS = 15.0  # to the queue
_SECONDS_OF_A_SLOW_FILE_SYSTEM = 5.0  # in which the answer of a job that has ended may come
_MOST_NAMED = 8


class Watch:
    """Waits for jobs.

    Args:
        sweep: their sweep's directory.
        queue: what they are in.
        jobs: the jobs, by their numbers in the sweep.
        directories: where the output of each goes.
        report: called with a line for each change of state and each result.
        fail: called with a line for each failure.
    """

    def __init__(
        self,
        sweep: Path,
        queue: Queue,
        jobs: Mapping[int, tuple[SubmittedJob, Path]],
        report: Callable[[str], None],
        fail: Callable[[str], None],
    ):
        self._sweep = sweep
        self._queue = queue
        self._jobs = {n: job for n, (job, _) in jobs.items()}
        self._where = {n: os.path.relpath(directory) for n, (_, directory) in jobs.items()}
        self._directories = {n: directory for n, (_, directory) in jobs.items()}
        self._report, self._fail = report, fail
        self._states: dict[int, str | None] = {}
        self._ended: dict[int, float] = {}  # when jobs without an answer were first seen ended
        self._answers = True  # whether the queue answered when it was last asked

    def until_all_have_ended(self) -> dict[int, str]:
        """Wait, and report what happens meanwhile.

        Returns:
            Where the output of those that failed is.

        Raises:
            KeyboardInterrupt: if a signal comes meanwhile.
        """
        unfinished, failed = set(self._jobs), {}
        began, next_question = time.monotonic(), 0.0
        previous = signal.signal(signal.SIGTERM, StopOnce())
        try:
            while unfinished:
                now = time.monotonic()
                if now >= next_question:
                    self._ask(unfinished)
                    pause = 1 + (now - began) / 20
                    next_question = now + min(_MOST_SECONDS_BETWEEN_QUESTIONS, pause)
                for number in sorted(unfinished):
                    if (succeeded := self._has_succeeded(number)) is not None:
                        unfinished.remove(number)
                        if not succeeded:
                            failed[number] = self._where[number]
                if unfinished:
                    time.sleep(_SECONDS_BETWEEN_LOOKS)
        finally:
            signal.signal(signal.SIGTERM, previous)
        return failed

    def _ask(self, numbers: set[int]) -> None:
        """Ask the queue for the states of jobs; report those that have changed."""
        states = self._queue.ask([self._jobs[number].id for number in numbers])
        if states is None:
            if self._answers:
                self._report("the queue does not answer; it is asked again")
            self._answers = False
            return
        self._answers = True
        for number in sorted(numbers):
            job = self._jobs[number]
            state = states.get(job.id)
            if not is_alive(state):
                self._ended.setdefault(number, time.monotonic())
            else:
                self._ended.pop(number, None)
            if state == "COMPLETING":
                continue
            if is_alive(state) and state != self._states.get(number):
                self._report(f"{self._where[number]}: {self._queue.job} {job.id} {state}")
            self._states[number] = state

    def _has_succeeded(self, number: int) -> bool | None:
        """Report how a job has ended, if it has; None: it has not."""
        job, where = self._jobs[number], self._where[number]
        if (answer := read_answer(self._sweep, job)) is not None:
            if answer.reason is None:
                self._report(f"{where}: {result_of(self._directories[number])}")
                return True
            reason = answer.reason.removeprefix(f"{where}: ")
        elif number in self._ended:
            state = self._states.get(number)
            waited = time.monotonic() - self._ended[number]
            if state in (None, "COMPLETED", "FAILED") and waited < _SECONDS_OF_A_SLOW_FILE_SYSTEM:
                return None
            ended = f"{self._queue.job} {job.id} ended" + (f" ({state})" if state else "")
            reason = f"{ended}; the same command resumes it"
        else:
            return None
        log = f"; log: {os.path.relpath(job.log)}"
        self._fail(f"{where}: {cut_off(reason, LONGEST_LINE - len(f'{where}: {log}'))}{log}")
        return False


def result_of(directory: Path) -> str:
    """Say in a line what a finished run has reached, as the run itself does."""
    from bpc_cli.runs.summary import closing_words

    try:
        summary = read_summary(directory)
        lines = summary.get("seeds") or [summary["final"]]
        return printable(closing_words(summary["data"]["name"], lines))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "finished"


def what_stays(sweep: Path, queue: Queue, again: str) -> str:
    """Say which jobs of a sweep are still in the queue, how to end them, and what happens if not.

    Args:
        sweep: the sweep's directory, which has the record of its jobs.
        queue: what they are in.
        again: how to give the same command again.
    """
    time.sleep(queue.seconds_to_stop)
    jobs = [job for job in read_record(sweep).values() if job.queue == queue.name]
    states = queue.ask([job.id for job in jobs]) if jobs else {}
    by_state: dict[str, list[str]] = {}
    for job in jobs:
        state = "perhaps running" if states is None else states.get(job.id)
        if state is not None and is_alive(state) and read_answer(sweep, job) is None:
            by_state.setdefault(state.partition(" (")[0].lower(), []).append(job.id)
    if not by_state:
        return f"{again} resumes"
    ids = [each for alike in by_state.values() for each in alike]
    named = ", ".join(f"{_list(alike)} {state}" for state, alike in by_state.items())
    return (
        f"{queue.jobs} go on: {named}; '{queue.how_to_end(ids)}' ends them; "
        f"{again} waits for them and submits none twice"
    )


def _list(ids: list[str]) -> str:
    more = f" and {len(ids) - _MOST_NAMED} more" if len(ids) > _MOST_NAMED else ""
    return " ".join(ids[:_MOST_NAMED]) + more
