"""What tells one command from another."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from bpc_cli.cli.jobs import Failure, Job


class Command(NamedTuple):
    """A command of ours that Hydra composes configs for.

    Attributes:
        name: its name, which starts its error lines.
        config_name: the primary config in `configs/`.
        schema: the dataclass that a composed config must fit.
        run: does the work of jobs that are alike in all but numbers, often of a single one, and
            returns for each what it failed by.
        about: what `--help` says first.
        examples: command lines, and what each does.
        positional: the option that a word without a name is the value of.
        dry_run: describes what `run` would do, and does nothing; None where `--dry-run` is unknown.
    """

    name: str
    config_name: str
    schema: type
    run: Callable[[Sequence[Job]], list[Failure]]
    about: str
    examples: tuple[tuple[str, str], ...]
    positional: str | None = None
    dry_run: Callable[[Sequence[Job]], list[Failure]] | None = None
