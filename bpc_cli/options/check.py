"""Checking a composed config: every type, range and combination, and one line for what is wrong."""

import copy
import dataclasses
import difflib
import json
import math
import re
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bpc_cli.errors import UserError
from bpc_cli.options.declare import option_fields, option_paths
from bpc_cli.options.evaluation_schema import DIAGNOSTICS, EvalConfig
from bpc_cli.options.schema import TrainConfig, checkpoint_distance

Config = TypeVar("Config")


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
    assert isinstance(config, schema)
    for path, field, value in _leaves(config):
        _check_range(path, field.metadata, value)
    if config_data := getattr(config, "data", None):
        _check_data_name(config_data.name)
    if isinstance(config, TrainConfig):
        _check_combinations(config)
    if isinstance(config, EvalConfig):
        for name in config.diagnostics:
            if name not in (*DIAGNOSTICS, "all"):
                raise UserError(unknown_choice("diagnostics", name, (*DIAGNOSTICS, "all")))
        shares = config.diagnosis.hidden
        if not shares or not all(0 < share < 1 for share in shares):
            raise UserError("diagnosis.hidden must be shares of pixels, each above 0 and below 1")
    return config


def check_saved_config(saved: object, path: Path) -> TrainConfig:
    """Check the config that a checkpoint was saved with, like a new one.

    Options that did not exist then are taken as what runs did before them.

    Raises:
        UserError: naming the checkpoint, if it holds no config that can be used.
    """
    if not isinstance(saved, dict):
        raise UserError(f"{path} holds no config")
    if "${" in json.dumps(saved):  # what is saved has been resolved, so it asks for nothing
        raise UserError(f"{path} holds a config that refers to other places")
    complete = copy.deepcopy(saved)
    for option, field in option_fields(TrainConfig):
        if field.metadata["before"] != MISSING:
            *groups, name = option.split(".")
            holder = complete
            for group in groups:
                holder = holder.setdefault(group, {})
                if not isinstance(holder, dict):
                    raise UserError(f"{path} holds a config whose {group} is not a group")
            holder.setdefault(name, field.metadata["before"])
    try:
        return check_config(complete, TrainConfig)
    except UserError as error:
        raise UserError(f"{path} holds a config that cannot be used: {error}") from error


def changed_options(earlier: TrainConfig, now: TrainConfig) -> list[str]:
    """List the options that two runs differ in and that may not change when one goes on.

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
            listed.append(f"{option} (was {then}, now {value})")
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
    return f"{key}: {first_line}" if key else first_line


def unknown_option(key: str, schema: type) -> str:
    """Say in one line that an option does not exist, and which ones are close to it."""
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


def _leaves(config: Any, prefix: str = ""):
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _leaves(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", field, value


def _check_range(path: str, limits: typing.Mapping[str, Any], value: Any) -> None:
    if limits["choices"] and value is not None and value not in limits["choices"]:
        raise UserError(unknown_choice(path, str(value), limits["choices"]))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if not math.isfinite(value):
        raise UserError(f"{path} must be a finite number, not {value}")
    if limits["at_least"] is not None and value < limits["at_least"]:
        raise UserError(f"{path} must be at least {limits['at_least']}, not {value}")
    if limits["above"] is not None and value <= limits["above"]:
        raise UserError(f"{path} must be above {limits['above']}, not {value}")
    if limits["at_most"] is not None and value > limits["at_most"]:
        raise UserError(f"{path} must be at most {limits['at_most']}, not {value}")


def _check_combinations(config: TrainConfig) -> None:
    if config.seed + config.n_seeds > 2**32:
        raise UserError(f"seed + n_seeds must be at most {2**32}: seeds have 32 bits")
    try:
        checkpoint_distance(config)
    except ValueError as error:
        raise UserError(
            "checkpoint_every must be a number of iterations (100) or of seconds (60s), "
            f"not {config.checkpoint_every}"
        ) from error
    algorithm, inference = config.algorithm.name, config.inference
    for direction, weight, factors in (
        ("forward", config.forward_energy_weight, inference.forward_layer_weights),
        ("backward", config.backward_energy_weight, inference.backward_layer_weights),
    ):
        if factors is not None and len(factors) != config.model.depth:
            raise UserError(
                f"inference.{direction}_layer_weights must have model.depth = {config.model.depth} "
                f"numbers, not {len(factors)}"
            )
        if factors is not None and not all(0 <= factor < math.inf for factor in factors):
            raise UserError(f"inference.{direction}_layer_weights must be at least 0, and finite")
        if weight == 0 and algorithm == {"forward": "genpc", "backward": "discpc"}[direction]:
            raise UserError(f"{direction}_energy_weight is 0: {algorithm} would learn nothing")
    if algorithm == "bp" and (inference.n_steps or inference.start):
        raise UserError(
            "algorithm=bp has no activities to infer: leave inference.n_steps and inference.start "
            "at null"
        )
    if algorithm == "bp" and (inference.forward_layer_weights or inference.backward_layer_weights):
        raise UserError("algorithm=bp learns from its outputs alone: it has no layer weights")
    _check_labels(config)
    if config.forward_energy_weight == 0 and config.backward_energy_weight == 0:
        raise UserError(
            "forward_energy_weight and backward_energy_weight are both 0: nothing would be learnt"
        )


def _check_labels(config: TrainConfig) -> None:
    algorithm, fraction = config.algorithm.name, config.data.label_fraction
    if fraction == 1:
        if config.inference.label_decay:
            raise UserError(
                "inference.label_decay is the prior of labels that are free in training: choose "
                "data.label_fraction below 1"
            )
        return
    if algorithm == "bp":
        raise UserError(
            f"data.label_fraction={fraction}: algorithm=bp learns from labels alone, and cannot "
            "use an image without one"
        )
    if config.model.label_loss == "cross_entropy":
        raise UserError(
            f"data.label_fraction={fraction}: a label that is free has no cross-entropy with its "
            "prediction; choose model.label_loss=squared"
        )
    if fraction == 0 and algorithm == "discpc" and config.inference.start in (None, "amortised"):
        raise UserError(
            "data.label_fraction=0: without labels the amortiser's own activities leave discpc no "
            "error, and it would learn nothing"
        )


def _check_data_name(name: str) -> None:
    if not re.fullmatch(r"\w+(/\w+)?", name, re.ASCII):
        raise UserError(f"data.name must be a data set's name, not '{name}'")
