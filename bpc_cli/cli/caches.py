"""What is kept between runs, where, and how much of it: `--where` and `--clear-cache`."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bpc_cli.data.datasets import data_directory
from bpc_cli.data.image_folder import folders_in_cache
from bpc_cli.data.packing import one_at_a_time, packed_below
from bpc_cli.errors import UserError
from bpc_cli.files import cache_directory

_MADE_MEANWHILE = (errno.ENOENT, errno.ENOTEMPTY)


class Cache(NamedTuple):
    """A folder of what is kept.

    Attributes:
        holds: what is in it.
        path: where it is.
        set_by: the environment variable that chooses the place.
        is_ours: whether `--clear-cache` empties it.
        is_locked: whether processes make what is in it one at a time.
    """

    holds: str
    path: Path
    set_by: str
    is_ours: bool = True
    is_locked: bool = True


def describe() -> str:
    """List what is kept, a line each: what, how much, where, and whose it is."""
    caches = _caches()
    lines = []
    for cache in caches:
        size = sum(_sizes(cache.path))
        if not cache.is_ours:  # ours lies in it
            size -= sum(sum(_sizes(own.path)) for own in caches if cache.path in own.path.parents)
        whose = "cleared by --clear-cache" if cache.is_ours else "TFDS's, never cleared"
        lines.append(
            f"{cache.holds:<28}{_in_words(size):>10}  {cache.path}  (${cache.set_by}; {whose})"
        )
    return "\n".join(lines)


def empty_ours() -> str:
    """Remove what can be made again, and say how much that was.

    Processes that use it go on: what they have open stays theirs. No link is followed.

    Raises:
        UserError: if a folder of ours is a link.
        OSError: if something cannot be removed.
    """
    ours = [cache for cache in _caches() if cache.is_ours]
    for cache in ours:
        if cache.path.is_symlink():
            raise UserError(f"{cache.path} is a link, which is not followed: remove it yourself")
    freed = 0
    for cache in ours:
        for entry in _entries(cache.path):
            freed += sum(_sizes(entry))
            # Else another process might be writing it.
            with one_at_a_time(entry) if cache.is_locked else contextlib.nullcontext():
                _remove(entry)
    return f"{_in_words(freed)} freed in {' and '.join(str(cache.path) for cache in ours)}"


def _caches() -> list[Cache]:
    data = data_directory()
    return [
        Cache("compiled programs", cache_directory() / "jax", "BPC_CACHE_DIR", is_locked=False),
        Cache(
            "classifiers of samples",
            cache_directory() / "classifiers",
            "BPC_CACHE_DIR",
            is_locked=False,
        ),
        Cache("packed data sets", packed_below(data), "TFDS_DATA_DIR"),
        Cache("packed folders of images", folders_in_cache(), "BPC_CACHE_DIR"),
        Cache("data sets as TFDS has them", data, "TFDS_DATA_DIR", is_ours=False),
    ]


def _entries(folder: Path) -> list[Path]:
    """List what is in a folder, but for locks."""
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return [entry for entry in found if entry.suffix != ".lock"]


def _remove(entry: Path) -> None:
    if entry.is_symlink() or not entry.is_dir():
        entry.unlink(missing_ok=True)
        return
    try:
        shutil.rmtree(entry)
    except OSError as error:
        if error.errno not in _MADE_MEANWHILE:  # by a run that goes on
            raise


def _sizes(path: Path) -> Iterator[int]:
    """Go through the sizes of files at or below a path, in bytes; no link is followed."""
    if path.is_symlink():
        return
    if path.is_file():
        yield path.stat().st_size
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                yield os.lstat(os.path.join(folder, name)).st_size
            except OSError:  # it has gone meanwhile
                continue


def _in_words(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
