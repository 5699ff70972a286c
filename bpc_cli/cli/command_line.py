"""From a command line to checked jobs: Hydra, one-line errors, exit codes."""

import contextlib
import gc
import importlib
import importlib.metadata
import itertools
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence

import hydra
from hydra._internal.hydra import Hydra
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from bpc_cli.cli.commands import Command
from bpc_cli.cli.completion import completions
from bpc_cli.cli.evaluated_sweep import quoted, spread_over_runs
from bpc_cli.cli.help import choices_of, explain
from bpc_cli.cli.jobs import EndOfSweep, JobsFailed, Task, fail
from bpc_cli.errors import UserError, one_line
from bpc_cli.options.check import (
    explain_omegaconf_error,
    unknown_choice,
    unknown_option,
)
from bpc_cli.options.declare import renamed_options
from bpc_cli.options.evaluation_schema import register_schemas
from bpc_cli.options.names import GROUPS, LAUNCHERS

_FLAGS = {
    *("--cfg", "--config-dir", "--config-name", "--config-path", "--experimental-rerun"),
    *("--hydra-help", "--info", "--package", "--resolve", "--run", "--shell-completion"),
}
_DRY_RUN = "--dry-run"
_FLAGS_ALONE = ("-m", "--multirun", "-r", "--run", "--resolve")  # no value follows these


def run_command(command: Command) -> None:
    """Run one job per composed config, and exit with 1 if the command line or any job is wrong."""
    if {"--help", "-h"} & set(sys.argv[1:]):
        register_schemas()
        print(explain(command))
        return
    if "--version" in sys.argv[1:]:
        print(f"{command.name} {importlib.metadata.version('bpc-cli')}")
        return
    if {"--where", "--clear-cache"} & set(sys.argv[1:]):
        _care_for_caches(command.name, sys.argv[1:])
        return
    if (words := completions(command)) is not None:
        print("\n".join(words))
        return
    is_dry = command.dry_run is not None and _DRY_RUN in sys.argv[1:]
    if is_dry:
        sys.argv[1:] = [word for word in sys.argv[1:] if word != _DRY_RUN]
    _prepare_flags(command.name)
    _name_word(command.name, command.positional)
    _take_former_names(command.name, command.schema)
    if command.positional == "checkpoint":
        sys.argv[1:] = spread_over_runs(sys.argv[1:])
    debugging = bool(os.environ.get("HYDRA_FULL_ERROR"))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing and exiting
    register_schemas()
    _register_plugins()
    task = None
    try:
        work = command.dry_run if is_dry and command.dry_run else command.run
        task = Task(command.name, command.schema, work, debugging=debugging)
        task.is_dry = is_dry
        with _composed_once(sys.argv[1:]):
            hydra.main(
                version_base="1.3",
                config_path="pkg://bpc_cli.configs",
                config_name=command.config_name,
            )(task)()
    except (JobsFailed, EndOfSweep) as error:
        for line in error.lines:
            fail(command.name, line)
        sys.exit(1)
    except (HydraException, OmegaConfBaseException, OSError, ValueError) as error:
        if debugging or (task and task.in_job):  # a mistake of ours, to be seen whole
            raise
        fail(command.name, _explain(error, command.schema))
        sys.exit(1)
    except KeyboardInterrupt as error:
        fail(
            command.name,
            "; ".join(dict.fromkeys(["interrupted", *(task.how_to_resume if task else [])])),
        )
        sys.exit(128 + getattr(error, "number", signal.SIGINT))
    finally:
        gc.freeze()  # else Python looks for garbage among all of JAX's objects before it exits
    if task.failures:
        sys.exit(1)


@contextlib.contextmanager
def _composed_once(words: Sequence[str]) -> Iterator[None]:
    """Spare Hydra a composition in a `with` block, of which it only wants to know `hydra.mode`.

    That is set by a word of the command line or not at all, as long as all configs are ours.
    """
    whole = Hydra.get_mode
    others = ("hydra.mode", "hydra.searchpath", "--config")
    if not any(word.startswith("-c") or any(part in word for part in others) for word in words):
        Hydra.get_mode = lambda *_, **__: None
    try:
        yield
    finally:
        Hydra.get_mode = whole


def _care_for_caches(command: str, words: Sequence[str]) -> None:
    from bpc_cli.cli import caches

    try:
        if len(words) > 1:
            raise UserError("--where and --clear-cache stand alone, without other words")
        print(caches.empty_ours() if words[0] == "--clear-cache" else caches.describe())
    except (UserError, OSError) as error:
        fail(command, one_line(error))
        sys.exit(1)


def _register_plugins() -> None:
    """Make our plugins known to Hydra, which does not find those of an editable installation."""
    known = Plugins.instance()  # first, as it loads the modules anew that ours build on
    ours = importlib.import_module("hydra_plugins.bpc")
    launchers = (ours.VmapLauncher, ours.SlurmLauncher, ours.LocalLauncher)
    for plugin in (ours.Sweeper, ours.OptunaSweeper, *launchers):
        known.register(plugin)
    # Else Hydra would lay its plugins' own launcher configs under ours of the same names.
    theirs = ConfigStore.instance().repo.get("hydra", {}).get("launcher", {})
    for name in LAUNCHERS[2:]:
        theirs.pop(f"{name}.yaml", None)


def _prepare_flags(command: str) -> None:
    """Put Hydra's flags first, where alone it takes `-m`, and refuse unknown ones in one line."""
    flags = [word for word in sys.argv[1:] if word in ("-m", "--multirun")]
    rest = [word for word in sys.argv[1:] if word not in flags]
    for word in rest:
        if word.startswith("--") and word.partition("=")[0] not in _FLAGS:
            fail(command, f"unknown flag '{word}'; options are NAME=VALUE, and --help lists them")
            sys.exit(1)
    sys.argv[1:] = flags + rest


def _name_word(command: str, option: str | None) -> None:
    """Give the word that stands alone on the command line its option's name, and quotes.

    What follows a flag of Hydra's may be its value, and is left as it is.
    """
    words = sys.argv[1:]
    alone = [
        number
        for number, (before, word) in enumerate(itertools.pairwise(["-m", *words]), 1)
        if not re.match(r"(?s)[-+~]|[^./].*=|=", word)  # a path may hold a '=', after ./ or /
        and (not before.startswith("-") or before in _FLAGS_ALONE)
    ]
    if not alone:
        return
    if option is None or len(alone) > 1 or any(word.startswith(f"{option}=") for word in words):
        wanted = f"NAME=VALUE, or {option}=PATH just once" if option else "NAME=VALUE"
        fail(command, f"'{sys.argv[alone[-1]]}' is no option: write {wanted}")
        sys.exit(1)
    sys.argv[alone[0]] = f"{option}={quoted(sys.argv[alone[0]])}"


def _take_former_names(command: str, schema: type) -> None:
    """Give options on the command line their names now, with a line of warning for each."""
    renamed = renamed_options(schema)
    for number, word in enumerate(sys.argv[1:], 1):
        match = re.match(r"([+~]*)([\w.]+)(=.*|$)", word, re.DOTALL)
        if match and (now := renamed.get(match[2])):
            sys.argv[number] = f"{match[1]}{now}{match[3]}"
            warning = f"'{match[2]}' is now '{now}'; the former name goes with the next release"
            print(f"{command}: WARNING: {warning}", file=sys.stderr)


def _explain(error: BaseException, schema: type) -> str:
    """Shorten what Hydra says of a command line to one line, without its advice to use '+'."""
    text = str(error)
    if match := re.match(r"Could not override '([^']+)'", text):
        key = match[1]
        cause = error.__cause__
        if isinstance(cause, OmegaConfBaseException) and "not in" not in str(cause):
            return explain_omegaconf_error(cause, schema)
        return unknown_option(key, schema)
    missing = r"(?s)In .*Could not (?:find|load) '([^']+)/([^']+)'"
    if match := re.match(missing, text):
        group, name = match.groups()
        return (
            unknown_choice(group, name, choices_of(group)) if group in GROUPS else one_line(error)
        )
    if match := re.match(r"Could not append to config\. An item is already at '([^']+)'", text):
        return f"'+{match[1]}' is already an option: write it without '+'"
    if isinstance(error, OmegaConfBaseException):
        return explain_omegaconf_error(error, schema)
    if isinstance(error.__cause__, OmegaConfBaseException):
        return explain_omegaconf_error(error.__cause__, schema)
    return one_line(error)
