"""From a command line to checked jobs: Hydra, one-line errors, exit codes."""

import gc
import importlib.metadata
import importlib.resources
import os
import re
import signal
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import psutil
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bpc_cli.checking import (
    check_config,
    explain_omegaconf_error,
    unknown_choice,
    unknown_option,
)
from bpc_cli.config import EvalConfig, option_fields, register_schemas
from bpc_cli.errors import UserError

_FLAGS = {
    *("--cfg", "--config-dir", "--config-name", "--config-path", "--experimental-rerun"),
    *("--hydra-help", "--info", "--package", "--resolve", "--run", "--shell-completion"),
}
_GROUPS = ("model", "optim", "inference", "data", "experiment")


class _EndOfSweep(BaseException):
    """Passes through Hydra, which goes on to the next job after an Exception."""


def run_command(
    command: str,
    config_name: str,
    schema: type,
    job: Callable[[Any, Path, float], None],
    about: str,
) -> None:
    """Run one job per composed config, and exit with 1 if the command line or any job is wrong.

    Args:
        command: the command's name, which starts its error lines.
        config_name: the primary config in `configs/`.
        schema: the dataclass that a composed config must fit.
        job: does the work, given the checked config, the directory for its output, and when it
            began (seconds since the epoch; for a process's first job, when the process did).
        about: what `--help` says first.
    """
    if {"--help", "-h"} & set(sys.argv[1:]):
        register_schemas()
        print(_help(command, config_name, schema, about))
        return
    if "--version" in sys.argv[1:]:
        print(f"{command} {importlib.metadata.version('bpc-cli')}")
        return
    _prepare_flags(command)
    debugging = bool(os.environ.get("HYDRA_FULL_ERROR"))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing and exiting
    register_schemas()
    failures: list[str] = []
    go_on: list[str] = []
    began = _process_began()
    there_before: set[Path] = set()
    in_job = False

    def task(composed: DictConfig) -> None:
        nonlocal began, in_job
        in_job = True
        directory = Path(HydraConfig.get().runtime.output_dir)
        try:
            job(check_config(composed, schema), directory, began)
        except (UserError, OSError) as error:
            if debugging:
                raise
            failures.append(f"{os.path.relpath(directory)}: {_one_line(error)}")
            _fail(command, _one_line(error))
            if isinstance(error, UserError) and error.ends_sweep:
                raise _EndOfSweep from error
        except KeyboardInterrupt:
            go_on.append(_how_to_go_on(directory))
            raise
        finally:
            _remove_what_hydra_made(directory, there_before)
            began = time.time()
        in_job = False

    try:
        there_before |= set(Path.cwd().iterdir())
        hydra.main(
            version_base="1.3", config_path="pkg://bpc_cli.configs", config_name=config_name
        )(task)()
    except (HydraException, OmegaConfBaseException, OSError, ValueError) as error:
        if debugging or in_job:  # what a job lets through is a mistake of ours, to be seen whole
            raise
        _fail(command, _explain(error, schema))
        sys.exit(1)
    except KeyboardInterrupt as error:
        _fail(command, "; ".join(["interrupted", *go_on]))
        sys.exit(128 + getattr(error, "number", signal.SIGINT))
    except _EndOfSweep:
        pass
    finally:
        gc.freeze()  # else Python looks for garbage among all of JAX's objects before it exits
    if failures:
        if {"-m", "--multirun"} & set(sys.argv[1:]):
            _fail(command, f"{len(failures)} job(s) failed: {'; '.join(failures)}")
        sys.exit(1)


def save_composed_config(config: Any, directory: Path) -> None:
    """Write a job's config as composed to `directory/.hydra`, in Hydra's own layout.

    Hydra itself would write it before the config has been checked, and into a directory that holds
    a finished run.
    """
    job = HydraConfig.get()
    folder = directory / ".hydra"
    folder.mkdir(exist_ok=True)
    OmegaConf.save(OmegaConf.structured(config), folder / "config.yaml")
    OmegaConf.save(OmegaConf.create({"hydra": job}), folder / "hydra.yaml")
    OmegaConf.save(job.overrides.task, folder / "overrides.yaml")


def _how_to_go_on(directory: Path) -> str:
    """Say what to add to a command whose job was interrupted, if it left anything."""
    if not directory.exists() or not any(directory.iterdir()):
        return "nothing had been saved"
    job = HydraConfig.get()
    option, chosen = "hydra.run.dir", directory
    if job.mode == RunMode.MULTIRUN:
        option, chosen = "hydra.sweep.dir", Path(job.sweep.dir)
    return f"the same command with {option}={os.path.relpath(chosen)} goes on"


def _process_began() -> float:
    """Tell when this process was started, in seconds since the epoch."""
    try:
        # psutil counts from a boot time in whole seconds, which is up to one second off.
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        after_boot = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - after_boot)
    except (OSError, AttributeError):
        return psutil.Process().create_time()


def _prepare_flags(command: str) -> None:
    """Put Hydra's flags first, where alone it takes `-m`, and refuse unknown ones in one line."""
    flags = [word for word in sys.argv[1:] if word in ("-m", "--multirun")]
    rest = [word for word in sys.argv[1:] if word not in flags]
    for word in rest:
        if word.startswith("--") and word.partition("=")[0] not in _FLAGS:
            _fail(command, f"unknown flag '{word}'; options are NAME=VALUE, and --help lists them")
            sys.exit(1)
    sys.argv[1:] = flags + rest


def _fail(command: str, line: str) -> None:
    sys.stdout.flush()
    print(f"{command}: {line}", file=sys.stderr)


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return " ".join(str(error).split())


def _explain(error: BaseException, schema: type) -> str:
    """Shorten what Hydra says of a command line to one line, without its advice to use '+'."""
    text = str(error)
    if match := re.match(r"Could not override '([^']+)'", text):
        key = match[1]
        cause = error.__cause__
        if isinstance(cause, OmegaConfBaseException) and "not in" not in str(cause):
            return explain_omegaconf_error(cause, schema)
        return unknown_option(key, schema)
    if match := re.match(r"(?s)In .*Could not find '([^']+)/([^']+)'.*?Available options", text):
        group, name = match.groups()
        return (
            unknown_choice(group, name, _choices(group)) if group in _GROUPS else _one_line(error)
        )
    if match := re.match(r"Could not append to config\. An item is already at '([^']+)'", text):
        return f"'+{match[1]}' is already an option: write it without '+'"
    if isinstance(error, OmegaConfBaseException):
        return explain_omegaconf_error(error, schema)
    if isinstance(error.__cause__, OmegaConfBaseException):
        return explain_omegaconf_error(error.__cause__, schema)
    return _one_line(error)


def _choices(group: str) -> list[str]:
    """List a config group's names."""
    folder = importlib.resources.files("bpc_cli.configs").joinpath(group)
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    )


def _remove_what_hydra_made(directory: Path, there_before: set[Path]) -> None:
    """Remove the directory that Hydra made for a job which left nothing, and its empty parents.

    What was there before stays, and so does everything outside the working directory.
    """
    for folder in (directory, *directory.parents):
        outside = Path.cwd() not in folder.parents
        if folder in there_before or (outside and folder != directory):
            return
        try:
            folder.rmdir()
        except OSError:  # not empty
            return


def _help(command: str, config_name: str, schema: type, about: str) -> str:
    """Explain every option with its unit and default."""
    with hydra.initialize_config_module("bpc_cli.configs", version_base="1.3"):
        composed = hydra.compose(config_name)
    lines = [about, "", "Options (NAME=VALUE):"]
    for path, field in option_fields(schema):
        missing = OmegaConf.is_missing(composed, path)
        value = None if missing else OmegaConf.select(composed, path)
        default = "required" if missing else "null" if value is None else str(value)
        unit = f" [{field.metadata['unit']}]" if field.metadata["unit"] else ""
        lines += textwrap.wrap(
            f"{field.metadata['help']}{unit} (default: {default})",
            initial_indent=f"  {path:<32}",
            subsequent_indent=" " * 34,
            width=100,
        )
        if field.metadata["choices"]:
            lines.append(" " * 34 + f"one of: {', '.join(field.metadata['choices'])}")
    lines += ["", "Groups (GROUP=NAME sets several options at once):"]
    for group in _GROUPS:
        if group in composed or (group == "experiment" and schema is not EvalConfig):
            lines.append(f"  {group:<32}{', '.join(_choices(group))}")
    lines += [
        "",
        "Hydra's own flags:",
        f"  {command} --cfg job               show the composed config and stop",
        f"  {command} -m NAME=A,B,C           run once per value, or per combination of values",
        f"  {command} --hydra-help            everything else, such as tab completion",
    ]
    return "\n".join(lines)
