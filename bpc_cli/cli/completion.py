"""Tab completion of what Hydra does not know: values of enumerations, and paths to runs."""

import glob
import os
import re
import sys
import typing
from collections.abc import Sequence

from bpc_cli.cli.commands import Command
from bpc_cli.options.declare import option_fields

_QUERY = re.compile(r"query=\w+")


def completions(command: Command) -> list[str] | None:
    """List what may stand for the last word of the line that a shell asks about.

    None if no shell asks, or Hydra knows better: it completes names of options and groups.
    """
    asks = {"-sc", "--shell-completion"} & {*sys.argv} and any(map(_QUERY.fullmatch, sys.argv))
    line = os.environ.get("COMP_LINE", "")
    if not asks or not line:
        return None
    word = "" if line[-1].isspace() else line.split()[-1]
    option, equals, value = word.partition("=")
    if equals and option == command.positional:
        return [f"{option}={path}" for path in _paths(value)]
    if not equals and command.positional and re.match(r"[./~]|\w+/", word):
        return _paths(word)
    if equals and (known := values_of(option.lstrip("+"), command.schema)):
        before, comma, last = value.rpartition(",")  # several values are a sweep
        return [f"{option}={before}{comma}{each}" for each in known if each.startswith(last)]
    if command.positional:
        os.environ["COMP_LINE"] = _without_paths(line)
    return None


def _without_paths(line: str) -> str:
    """Leave out the words before the last that are no options, which Hydra would not understand."""
    program, *rest = [*line.split(), *([""] if line[-1].isspace() else [])]
    between, last = rest[:-1], "".join(rest[-1:])
    return " ".join([program, *(word for word in between if re.search("=|^-", word)), last])


def values_of(option: str, schema: type) -> Sequence[str]:
    """List the values that an option can have, if these are few."""
    for path, field in option_fields(schema):
        if path == option:
            types = (field.type, *typing.get_args(field.type))
            named = field.metadata["choices"] or (("true", "false") if bool in types else ())
            return (*named, "null") if named and type(None) in types else named
    return ()


def _paths(begun: str) -> list[str]:
    """List files and folders whose path begins as given; a folder ends in a slash."""
    found = glob.glob(f"{glob.escape(os.path.expanduser(begun))}*")
    return sorted(f"{path}/" if os.path.isdir(path) else path for path in found)
