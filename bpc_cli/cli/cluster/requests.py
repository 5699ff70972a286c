"""What a sweep asks of a queue, beside what is finished or in the queue already."""

import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hydra.errors import HydraException

from bpc_cli.cli.cluster.queues import FOLDER, Queue, SubmittedJob, is_alive, printable
from bpc_cli.errors import UserError, cut_off, one_line
from bpc_cli.files import check_inside, read_inside
from bpc_cli.reporting.plain_yaml import read_plain_yaml
from bpc_cli.runs.directory import EVALUATION, is_finished


class Request(NamedTuple):
    """A job that a sweep asks for.

    Attributes:
        arguments: all of its overrides.
        overrides: those that are options of ours, sorted.
        directory: where its output goes.
    """

    arguments: list[str]
    overrides: tuple[str, ...]
    directory: Path


def check_times(timeout_min: Any, signal_delay_s: Any) -> None:
    """Check that a job has time to work before it is signalled.

    Raises:
        HydraException: if it has not.
    """
    for name, value in {"timeout_min": timeout_min, "signal_delay_s": signal_delay_s}.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise HydraException(f"hydra.launcher.{name} must be a number above 0, not {value}")
    if not signal_delay_s < 60 * timeout_min:
        raise HydraException(
            f"hydra.launcher.signal_delay_s={signal_delay_s} must be less than the "
            f"{60 * timeout_min:g} seconds of hydra.launcher.timeout_min={timeout_min}"
        )


def refuse_links_out(sweep: Path) -> None:
    """Refuse a sweep's directory from which a link of ours leads out.

    Raises:
        UserError: naming the link.
    """
    for folder in (sweep / FOLDER, sweep / ".submitit"):
        try:
            check_inside(sweep, folder)
        except OSError as error:
            raise UserError(f"{one_line(error)}: remove it") from error


def in_the_queue(
    queue: Queue, record: Mapping[int, SubmittedJob], requests: Mapping[int, Request]
) -> dict[int, SubmittedJob]:
    """Find the jobs that have been submitted for requests and have not ended.

    Raises:
        UserError: if one has other options than are asked for now, or the queue does not answer.
    """
    earlier = {n: job for n, job in record.items() if n in requests and job.queue == queue.name}
    states = queue.ask([job.id for job in earlier.values()]) if earlier else {}
    if states is None:
        raise UserError("the queue does not answer whether jobs of this sweep are in it: try later")
    alive = {n: job for n, job in earlier.items() if is_alive(states.get(job.id))}
    for number, job in alive.items():
        if job.overrides != requests[number].overrides:
            raise UserError(
                f"{queue.job} {job.id} is at work with other options on "
                f"{os.path.relpath(requests[number].directory)}: '{queue.command} {job.id}', or "
                "choose another hydra.sweep.dir"
            )
    return alive


def has_finished(request: Request) -> bool:
    """Tell whether the directory of a request holds what it asks for, finished."""
    path = request.directory / ".hydra" / "overrides.yaml"
    try:
        overrides = read_plain_yaml(read_inside(request.directory, path, 2**20).decode())
        same = tuple(sorted(overrides)) == request.overrides
    except (OSError, ValueError, TypeError):
        return False
    evaluated = (request.directory / EVALUATION).is_file()
    return same and (evaluated or is_finished(request.directory))


def remove_unused(sweep: Path) -> None:
    """Remove a sweep's directory in which there is nothing but what Hydra has written."""
    for folder in (sweep / FOLDER, sweep / ".submitit"):
        with contextlib.suppress(OSError):
            folder.rmdir()
    if [entry.name for entry in sweep.iterdir()] == ["multirun.yaml"]:
        shutil.rmtree(sweep)


def in_short(text: str) -> str:
    """Say what sbatch says in one line."""
    said = [line.removeprefix("sbatch: ").removeprefix("error: ") for line in text.splitlines()]
    return cut_off(printable("; ".join(line.strip() for line in said if line.strip())), 120)
