"""Compiled programs that are kept on disk, repaired where they are damaged.

JAX writes an entry in place, so that a full disk or a kill leaves one that cannot be read; and it
never replaces one that is there, so that every later process would compile its program again.
"""

import glob
import re
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from bpc_cli.errors import one_line

_FAILURE = "Error (reading|writing) persistent compilation cache entry for '(.*?)': "


def keep_programs(directory: Path) -> None:
    """Keep every compiled program of this process in a directory, and take those that are there.

    Raises:
        OSError: if the directory cannot be made.
    """
    directory.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    shown = warnings.showwarning
    if isinstance(shown, _Repair):
        shown.directory = directory
    else:
        # JAX tells of what it cannot read or write by warnings alone: the first before it compiles.
        warnings.filterwarnings("always", message=_FAILURE)
        warnings.showwarning = _Repair(directory, shown)


class _Repair:
    """Shows warnings; one of a damaged entry removes it, so that JAX writes it again.

    What happened is said once, whatever the number of entries.

    Args:
        directory: where entries are.
        show: shows other warnings.
    """

    def __init__(self, directory: Path, show: Callable[..., None]):
        self.directory = directory
        self._show = show
        self._said: set[str] = set()

    def __call__(self, message: Warning | str, *where: Any, **more: Any) -> None:
        failure = re.match(_FAILURE, str(message))
        if failure is None:
            self._show(message, *where, **more)
            return
        doing, program = failure.groups()
        directory = self.directory
        reason = " ".join(str(message)[failure.end() :].split())
        try:
            for entry in _damaged(directory, program):
                entry.unlink(missing_ok=True)
        except OSError as error:
            self._say("repairing", f"{directory} cannot be repaired ({one_line(error)})")
        if doing == "reading":
            self._say(doing, f"{directory} had damaged programs: they are compiled and kept anew")
        else:
            self._say(doing, f"programs cannot be kept in {directory} ({reason})")

    def _say(self, what: str, line: str) -> None:
        if what not in self._said:
            self._said.add(what)
            print(f"WARNING: compilation cache: {line}", file=sys.stderr)


def _damaged(directory: Path, program: str) -> list[Path]:
    """List the entries of a program that cannot be unpacked; if all can, each is to be doubted."""
    entries = list(directory.glob(f"{glob.escape(program)}-*-cache"))
    return [entry for entry in entries if not _unpacks(entry)] or entries


def _unpacks(entry: Path) -> bool:
    try:
        zlib.decompress(entry.read_bytes())
    except (OSError, zlib.error):  # by another compression too, which JAX takes where it is there
        return False
    return True
