"""Jobs that wait or run in a queue: a sweep's record of them, their states, their answers.

A sweep's directory may come from a stranger. What is read here is JSON, and never executed.
"""

import contextlib
import re
import subprocess
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from bpc_cli.errors import UserError, cut_off, one_line
from bpc_cli.files import parse_json, read_inside, write_json

FOLDER = ".submitted"  # in a sweep's directory: the record of its jobs, and their answers
_RECORD = "jobs.json"
_MOST_BYTES = 2**26

_ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("PREEMPTED", "REVOKED", "TIMEOUT"),
}
# Why jobs wait that will start by themselves; every other reason is worth a word.
_ORDINARY = {"None", "Priority", "Resources", "JobArrayTaskLimit", "BeginTime", "Cleaning"}
_ID = r"\d+(_\d+)?"


class SubmittedJob(NamedTuple):
    """A job that was handed to a queue.

    Attributes:
        queue: the queue's name.
        id: what the queue calls it.
        overrides: the options of its own, sorted.
        answer: the name of the file in which it says how it has ended.
        log: the path of what it writes.
    """

    queue: str
    id: str
    overrides: tuple[str, ...]
    answer: str
    log: str


class Queue(NamedTuple):
    """What jobs can wait in.

    Attributes:
        name: what the record calls it.
        job, jobs: what a job is called in it, and several are.
        command: the command that ends jobs, given their ids.
        ask: finds the states of jobs that the queue knows, by their ids; None: it does not answer.
        seconds_to_stop: how long jobs take to end at a Ctrl-C, which reaches these, too.
    """

    name: str
    job: str
    jobs: str
    command: str
    ask: Callable[[Collection[str]], dict[str, str] | None]
    seconds_to_stop: float = 0.0

    def how_to_end(self, ids: Iterable[str]) -> str:
        """Name the command that ends jobs; of a job array, all that remain."""
        return f"{self.command} {' '.join(arrays_of(ids))}"


class Answer(NamedTuple):
    """How a job has ended.

    Attributes:
        reason: what it failed by, or None.
    """

    reason: str | None


def is_alive(state: str | None) -> bool:
    """Tell whether a job in this state waits, runs or ends; None: the queue knows no such job."""
    return state is not None and state.partition(" ")[0] not in _ENDED


def read_record(sweep: Path) -> dict[int, SubmittedJob]:
    """Read which jobs of a sweep have been submitted, by their numbers in it.

    Raises:
        UserError: if that is damaged.
    """
    path = sweep / FOLDER / _RECORD
    try:
        entries = parse_json(read_inside(sweep, path, _MOST_BYTES))["jobs"]
        return {int(number): _checked(**entry) for number, entry in entries.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is damaged: see which of your jobs are in the queue, then remove it"
        ) from error


def write_record(sweep: Path, jobs: Mapping[int, SubmittedJob]) -> None:
    """Record which jobs of a sweep have been submitted, in place of what was recorded."""
    (sweep / FOLDER).mkdir(exist_ok=True)
    entries = {str(number): job._asdict() for number, job in sorted(jobs.items())}
    write_json(sweep / FOLDER / _RECORD, {"jobs": entries})


def write_answer(path: Path, reason: str | None) -> None:
    """Write, in a job, what it failed by, or that it did not."""
    write_json(path, {"reason": reason})


def read_answer(sweep: Path, job: SubmittedJob) -> Answer | None:
    """Read what a job has answered, if it has."""
    try:
        content = parse_json(read_inside(sweep, sweep / FOLDER / job.answer, _MOST_BYTES))
        reason = content["reason"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Answer(None if reason is None else printable(str(reason)))


def printable(text: str) -> str:
    """Make text that somebody else may have written one line, without control characters."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def slurm_queue(warn: Callable[[str], None]) -> Queue:
    """Make the queue of the Slurm cluster that this machine belongs to.

    `squeue` knows jobs until some minutes after their end; of those it knows no more, `sacct`
    tells how they ended, where the cluster keeps accounts.

    Args:
        warn: called with a line, once, if it keeps none.
    """
    keeps_accounts: list[bool] = []

    def ask(ids: Collection[str]) -> dict[str, str] | None:
        listed = f"--jobs={','.join(arrays_of(ids))}"
        states: dict[str, str] = {}
        try:
            queued = _run(
                *("squeue", listed, "--array", "--noheader", "--states=all"),
                "--format=%i|%T|%r",
            )
            states = parse_squeue(queued)
        except (OSError, subprocess.SubprocessError) as error:
            if "Invalid job id" not in str(getattr(error, "stderr", "")):
                return None
        if not keeps_accounts or (keeps_accounts[0] and not set(ids) <= states.keys()):
            try:
                accounts = _run("sacct", listed, "-X", "-n", "-P", "--format=JobID,State")
                states = parse_sacct(accounts) | states
                keeps_accounts[:] = [True]
            except (OSError, subprocess.SubprocessError) as error:
                if not keeps_accounts:
                    why = printable(str(getattr(error, "stderr", "") or one_line(error)))
                    warn(f"no accounting here ({cut_off(why, 80)}): states come from squeue")
                    keeps_accounts.append(False)
        return {each: state for each, state in states.items() if each in ids}

    return Queue("slurm", "Slurm job", "Slurm jobs", "scancel", ask)


def parse_squeue(text: str) -> dict[str, str]:
    """Read states of jobs, with a reason where they wait for what may never come.

    Args:
        text: lines of `job id|state|reason`.
    """
    states = {}
    for line in text.splitlines():
        each, state, reason = [*line.strip().split("|"), "", ""][:3]
        if re.fullmatch(_ID, each):
            waits = state == "PENDING" and reason not in _ORDINARY
            states[each] = printable(f"{state} ({reason})" if waits else state)
    return states


def parse_sacct(text: str) -> dict[str, str]:
    """Read states of jobs from lines of `job id|state`; queued jobs of an array share a line."""
    fields = (line.strip().split("|") for line in text.splitlines())
    return {
        each: printable(state).partition(" ")[0]  # CANCELLED by 1000
        for each, state, *_ in (field for field in fields if len(field) > 1)
        if re.fullmatch(_ID, each)
    }


def local_queue() -> Queue:
    """Make what stands for a queue on this machine: processes that each watch over a job."""

    def ask(ids: Collection[str]) -> dict[str, str]:
        states = {}
        for each in ids:
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(int(each))
                is_it = "submitit.local" in " ".join(process.cmdline())
                if is_it and process.status() != psutil.STATUS_ZOMBIE:
                    states[each] = "RUNNING"
        return states

    return Queue("local", "process", "processes", "kill", ask, seconds_to_stop=2.0)


def _checked(queue: str, id: str, overrides: list[str], answer: str, log: str) -> SubmittedJob:
    texts = [queue, id, answer, log, *overrides]
    if not all(isinstance(text, str) for text in texts) or not isinstance(overrides, list):
        raise TypeError
    if not re.fullmatch(_ID, id) or not re.fullmatch(r"[0-9a-f]+-\d+\.json", answer):
        raise ValueError
    return SubmittedJob(queue, id, tuple(overrides), answer, printable(log))


def arrays_of(ids: Iterable[str]) -> list[str]:
    """List jobs, those of an array as one."""
    return sorted({each.partition("_")[0] for each in ids}, key=int)


def _run(*command: str) -> Any:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout
