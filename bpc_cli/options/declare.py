"""How an option is declared: its explanation, unit and range, on a dataclass's field."""

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import MISSING

from bpc_cli.options.names import SECTIONS


def option(
    help: str,
    unit: str = "",
    *,
    section: str = "",
    short: str = "",
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    choices: tuple[str, ...] = (),
    takes_any_keys: bool = False,
    or_word: str = "",
    per_channel: bool = False,
    may_change: bool = False,
    traced: bool = False,
    before: Any = MISSING,
    was: str = "",
) -> Any:
    """Declare an option: its explanation, unit, and range; None is checked by its type alone.

    `or_word` says that it is a whole number, or this word.

    `per_channel` says that it is one number, or a list with one for each channel of an image.

    `section` is where `--help` lists it, one of `names.SECTIONS`, if not with its group. `short` is
    what lines of a sweep call it, if not the last part of its name.

    `may_change` says that a run may resume with another value, `traced` that runs of other values
    are trained by the same program. `before` is what runs did before the option existed, so that
    what they saved can be read. `was` is its name in the release before, which is still taken.
    """
    metadata = {
        "help": help,
        "unit": unit,
        "section": section,
        "short": short,
        "at_least": at_least,
        "above": above,
        "at_most": at_most,
        "choices": choices,
        "takes_any_keys": takes_any_keys,
        "or_word": or_word,
        "per_channel": per_channel,
        "may_change": may_change,
        "traced": traced,
        "before": before,
        "was": was,
    }
    return dataclasses.field(default=MISSING, metadata=metadata)


def option_paths(schema: type) -> list[str]:
    """List every option of a schema by its dotted path."""
    return [path for path, _ in option_fields(schema)]


def option_fields(schema: type, prefix: str = "") -> list[tuple[str, dataclasses.Field]]:
    """List every option of a schema: its dotted path and its declaration."""
    listed = []
    hints = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        path = f"{prefix}{field.name}"
        kind = hints[field.name]
        if dataclasses.is_dataclass(kind):
            assert isinstance(kind, type)
            listed += option_fields(kind, f"{path}.")
        else:
            listed.append((path, field))
    return listed


def options_by_section(schema: type) -> dict[str, list[tuple[str, dataclasses.Field]]]:
    """Sort a schema's options into the sections of `--help`, in the order of `names.SECTIONS`."""
    sections: dict[str, list[tuple[str, dataclasses.Field]]] = {name: [] for name in SECTIONS}
    for path, field in option_fields(schema):
        sections[field.metadata["section"] or path.partition(".")[0]].append((path, field))
    return {name: options for name, options in sections.items() if options}


def renamed_options(schema: type) -> dict[str, str]:
    """Map every former name of an option to its name now."""
    return {
        field.metadata["was"]: path
        for path, field in option_fields(schema)
        if field.metadata["was"]
    }


def flatten_options(
    tree: Mapping[str, Any], schema: type, prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """List a config's values by their dotted paths; an option that takes any keys stays whole."""
    whole = {path for path, field in option_fields(schema) if field.metadata["takes_any_keys"]}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping) and path not in whole:
            yield from flatten_options(value, schema, f"{path}.")
        else:
            yield path, value
