"""What trackers are told of a run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml


class TrackedRun(NamedTuple):
    """What trackers are told of a run.

    Attributes:
        directory: where it is kept.
        options: its config as plain values.
        first: the first iteration that is to come.
        name: what tells it from others.
        sweep: the sweep that it belongs to; None: none.
    """

    directory: Path
    options: Mapping[str, Any]
    first: int
    name: str
    sweep: str | None

    @property
    def config(self) -> str:
        """Its options as YAML."""
        return yaml.safe_dump(dict(self.options), sort_keys=False, allow_unicode=True)


def flat_options(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """List options by dotted names; a list becomes its JSON."""
    flat = {}
    for name, value in options.items():
        if isinstance(value, Mapping):
            flat |= flat_options(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = json.dumps(value) if isinstance(value, list) else value
    return flat
