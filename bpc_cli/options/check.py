"""Checking a composed config: every type and range, and one line for what is wrong."""

import copy
import dataclasses
import difflib
import json
import math
import operator
import re
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bpc_cli.errors import UserError, cut_off, one_line
from bpc_cli.options.combinations import check_combinations
from bpc_cli.options.declare import option_fields, option_paths, renamed_options
from bpc_cli.options.evaluation_schema import EvalConfig
from bpc_cli.options.schema import TrainConfig

Config = TypeVar("Config")

# What a saved config can have at most: two lists of a number per layer are the most there is.
_DEEPEST = 8
_MOST_VALUES = 5_000
_LONGEST_TEXT = 10_000
# What an error line shows of it.
_LONGEST_VALUE = 100
_LONGEST_LINE = 500


def check_config(composed: DictConfig | dict[str, Any], schema: type[Config]) -> Config:
    """Turn a composed config into its schema's dataclass, every value checked.

    Raises:
        UserError: naming an unknown key, a wrong type, a missing value or one out of range.
    """
    try:
        plain = (
            OmegaConf.to_container(composed, resolve=True)
            if isinstance(composed, DictConfig)
            else composed
        )
        # Merging onto the schema also refuses what Hydra lets in by a leading '+'.
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), plain))
    except OmegaConfBaseException as error:
        raise UserError(explain_omegaconf_error(error, schema)) from error
    except OverflowError as error:  # a number too large for a float
        raise UserError("a number among the options is out of range") from error
    assert isinstance(config, schema)
    for path, field, value in _leaves(config):
        if field.metadata["per_channel"]:
            value = _to_numbers(path, value)
            group, _, name = path.rpartition(".")
            setattr(operator.attrgetter(group)(config), name, value)
        if (word := field.metadata["or_word"]) and value != word and not _is_whole(value):
            shown = cut_off(repr(value), _LONGEST_VALUE)
            raise UserError(f"{path} must be a whole number or {word}, not {shown}")
        _check_range(path, field.metadata, value)
    if (config_data := getattr(config, "data", None)) and config_data.name is not None:
        _check_data_name(config_data.name)
    if isinstance(config, TrainConfig):
        check_combinations(config)
    if isinstance(config, EvalConfig):
        fractions = config.diagnosis.hidden
        if not fractions or not all(0 < fraction < 1 for fraction in fractions):
            raise UserError(
                "diagnosis.hidden must be fractions of pixels, each above 0 and below 1"
            )
    return config


def check_saved_config(saved: object, path: Path) -> TrainConfig:
    """Check the config that a checkpoint was saved with, like a new one.

    Options that did not exist then are taken as what runs did before them.

    Raises:
        UserError: naming the checkpoint, if it holds no config that can be used.
    """
    if not isinstance(saved, dict):
        raise UserError(f"{path} holds no config")
    if excess := _excess_of(saved):
        raise UserError(f"{path} holds a config that {excess}")
    if "${" in json.dumps(saved):  # what is saved has been resolved, so it asks for nothing
        raise UserError(f"{path} holds a config that refers to other places")
    complete = copy.deepcopy(saved)
    try:
        take_over_former_names(complete, TrainConfig)
        for option, field in option_fields(TrainConfig):
            if field.metadata["before"] != MISSING:
                group, name = _group_of(complete, option)
                group.setdefault(name, field.metadata["before"])
    except TypeError as error:
        raise UserError(f"{path} holds a config whose {error} is not a group") from error
    try:
        return check_config(complete, TrainConfig)
    except UserError as error:
        reason = cut_off(one_line(error), _LONGEST_LINE)
        raise UserError(f"{path} holds a config that cannot be used: {reason}") from error


def _excess_of(saved: object) -> str | None:
    """Say what a saved config has more of than any could, before work is spent on it."""
    level, n_values = [saved], 0
    for _ in range(_DEEPEST):
        if any(isinstance(value, str) and len(value) > _LONGEST_TEXT for value in level):
            return "holds a text that is too long"
        below: list[object] = []
        for value in level:
            if isinstance(value, dict):
                below += [*value.keys(), *value.values()]
            elif isinstance(value, list):
                below += value
        n_values += len(below)
        if n_values > _MOST_VALUES:
            return "holds too many values"
        if not below:
            return None
        level = below
    return "is nested too deeply"


def take_over_former_names(saved: dict[str, Any], schema: type) -> None:
    """Give what a config of an earlier release says under an option's former name its name now."""
    for former, now in renamed_options(schema).items():
        (from_group, from_name), (to_group, to_name) = (
            _group_of(saved, path) for path in (former, now)
        )
        if from_name in from_group:
            to_group.setdefault(to_name, from_group.pop(from_name))


def _group_of(config: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    """Find the group that holds an option, made if missing, and the option's name in it."""
    *groups, name = path.split(".")
    holder = config
    for group in groups:
        holder = holder.setdefault(group, {})
        if not isinstance(holder, dict):
            raise TypeError(group)
    return holder, name


def changed_options(earlier: TrainConfig, now: TrainConfig) -> list[str]:
    """List the options that two runs differ in and that may not change when one is resumed.

    The number of iterations may change, unless a learning rate's schedule is stretched over it.
    """
    stretched = now.optim.param_schedule is not None and not (
        {"decay_steps", "transition_steps"} & now.optim.param_schedule_args.keys()
    )
    listed = []
    for (option, field, then), (*_, value) in zip(_leaves(earlier), _leaves(now), strict=True):
        may_change = field.metadata["may_change"] and not (
            stretched and option in ("n_train_iters", "n_epochs")
        )
        if value != then and not may_change:
            was, now_is = (cut_off(str(each), _LONGEST_VALUE) for each in (then, value))
            listed.append(f"{option} (was {was}, now {now_is})")
    return listed


def program_options(config: TrainConfig) -> str:
    """Name what shapes a run's program: all of its options but numbers that a step is given.

    Runs with the same name can be trained by one program.
    """
    named = {}
    for option, field, value in _leaves(config):
        if option == "resume" or (field.metadata["traced"] and isinstance(value, int | float)):
            continue
        if isinstance(value, dict):  # real numbers among an optimiser's arguments are traced
            value = {k: "real" if isinstance(v, float) else v for k, v in value.items()}
        named[option] = value
    return json.dumps(named, sort_keys=True, default=str)


def explain_omegaconf_error(error: Exception, schema: type) -> str:
    """Say in one line which option is wrong, and for an unknown one which are close to it."""
    key = getattr(error, "full_key", None) or ""
    first_line = str(error).strip().splitlines()[0]
    if "not in" in first_line and key:
        return unknown_option(str(key), schema)
    if "missing mandatory value" in first_line.lower():
        return f"{key} must be given"
    if "is not a ListConfig" in first_line:
        return f"{key} must be a list, such as {key}=[…]"
    return f"{key}: {first_line}" if key else first_line


def unknown_option(key: str, schema: type) -> str:
    """Say in one line that an option does not exist, and which ones are close to it."""
    if now := renamed_options(schema).get(key):
        return f"'{key}' is now '{now}'"
    known = option_paths(schema)
    close = difflib.get_close_matches(key, known, n=1)
    if not close:
        close = [path for path in known if path.split(".")[-1] == key.split(".")[-1]]
    hint = f"; did you mean {' or '.join(close)}?" if close else "; --help lists all"
    return f"unknown option '{key}'{hint}"


def unknown_choice(what: str, name: str, known: Sequence[str]) -> str:
    """Say in one line that a name is unknown, which one is close to it, and which are known."""
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"unknown {what} '{name}'{hint} (known: {', '.join(known)})"


def _check_data_name(name: str) -> None:
    """Check that a name can be a data set's, and no path or address that TFDS would follow.

    Raises:
        UserError: if it cannot.
    """
    if not is_data_name(name):
        raise UserError(
            f"data.name must be a data set's name, not {cut_off(name, _LONGEST_VALUE)!r}"
        )


def is_data_name(name: object) -> bool:
    """Tell whether a value can be a data set's name, such as "mnist" or "emnist/letters"."""
    return isinstance(name, str) and bool(re.fullmatch(r"\w{1,99}(/\w{1,99})?", name, re.ASCII))


def _leaves(config: Any, prefix: str = ""):
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _leaves(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", field, value


def _check_range(path: str, limits: typing.Mapping[str, Any], value: Any) -> None:
    """Check a value, or each of a list's."""
    for chosen in value if isinstance(value, list) else [value]:
        if limits["choices"] and chosen is not None and chosen not in limits["choices"]:
            raise UserError(unknown_choice(path, str(chosen), limits["choices"]))
        if isinstance(chosen, int | float) and not isinstance(chosen, bool):
            _check_number(path, limits, chosen)


def _to_numbers(path: str, value: Any) -> float | list[float]:
    """Turn what is given for an option with a number for each channel into real numbers."""
    numbers = value if isinstance(value, list) else [value]
    try:
        if not numbers or any(isinstance(number, bool | str) for number in numbers):
            raise TypeError
        reals = [float(number) for number in numbers]
    except TypeError as error:
        raise UserError(
            f"{path} must be a number, or a list with one for each channel, not "
            f"{cut_off(repr(value), _LONGEST_VALUE)}"
        ) from error
    except OverflowError as error:
        raise UserError(f"{path} must be a finite number") from error
    return reals if isinstance(value, list) else reals[0]


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_number(path: str, limits: typing.Mapping[str, Any], value: int | float) -> None:
    if isinstance(value, int) and abs(value) >= 2**63:
        raise UserError(f"{path} must be a number of at most 64 bits")
    if not math.isfinite(value):
        raise UserError(f"{path} must be a finite number, not {value}")
    if limits["at_least"] is not None and value < limits["at_least"]:
        raise UserError(f"{path} must be at least {limits['at_least']}, not {value}")
    if limits["above"] is not None and value <= limits["above"]:
        raise UserError(f"{path} must be above {limits['above']}, not {value}")
    if limits["at_most"] is not None and value > limits["at_most"]:
        raise UserError(f"{path} must be at most {limits['at_most']}, not {value}")
