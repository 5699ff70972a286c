"""The id that a run has in a tracker, which lasts as long as its directory."""

import contextlib
import json
from pathlib import Path

from bpc_cli.files import read_inside, write_atomically


def read_id(path: Path, n_letters: int) -> str | None:
    """Read the id in a run's directory, of so many letters and digits; None if there is none."""
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(read_inside(path.parent, path, most=100))
        if isinstance(known, str) and known.isascii() and known.isalnum():
            return known if len(known) == n_letters else None
    return None


def keep_id(path: Path, made: str) -> str:
    """Write an id to a run's directory; return it."""
    write_atomically(path, json.dumps(made).encode())
    return made
