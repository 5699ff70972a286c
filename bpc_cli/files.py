"""Files that are replaced whole or not at all, locks that end with their owner's process, and
directories from strangers, in which no link leads out and no pipe is waited for.
"""

import contextlib
import errno
import fcntl
import json
import math
import os
import secrets
import socket
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

JsonObject = dict[str, Any]

_NO_LOCKS_HERE = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


def expanded(path: str | os.PathLike[str]) -> Path:
    """Put a home directory in place of a leading `~`.

    Raises:
        OSError: if no home directory is known, as for a user without a name where $HOME is not set.
    """
    found = os.path.expanduser(path)
    if found.startswith("~"):
        raise OSError(f"{found} has no meaning here, as no such user's home is known: give a path")
    return Path(found)


def cache_directory() -> Path:
    """Name the directory for what can be made again: `$BPC_CACHE_DIR` or the user's cache.

    Raises:
        OSError: if the user has no home directory.
    """
    if chosen := os.environ.get("BPC_CACHE_DIR"):
        return expanded(chosen)
    return expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "bpc"


def check_inside(directory: Path, path: Path) -> Path:
    """Find where a path in a directory really is, if it is safe to open.

    A directory may come from a stranger: a link in it may lead anywhere, and a pipe lets whoever
    opens it wait for ever. Links that stay in the directory are followed, and it may be one itself.

    Args:
        directory: a run directory, or a folder of such.
        path: the directory, or a file or folder in it; it need not exist.

    Raises:
        OSError: if a link leads out of the directory, or this is neither a file nor a folder.
    """
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(os.path.realpath(directory)):
        raise OSError(f"{path} is a link that leads out of its run directory")
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        mode = real.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise OSError(f"{path} is neither a file nor a folder")
    return real


def open_inside(directory: Path, path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a file in a directory, as `check_inside` explains.

    Args:
        directory: a run directory, or a folder of such.
        path: the file.
        flags: those of `os.open`.

    Returns:
        A descriptor, of a regular file even if the path is replaced at this moment.

    Raises:
        OSError: if there is no such file, or it is not safe to open.
    """
    real = check_inside(directory, path)
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(real, flags, 0o644)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is not a file")
    return descriptor


def read_inside(directory: Path, path: Path, most: int) -> bytes:
    """Read a file in a directory, of `most` bytes at most.

    Raises:
        OSError: if there is no such file, it is larger, or it is not safe to open.
    """
    with os.fdopen(open_inside(directory, path), "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(f"{path} is larger than {most:,} bytes")
    return content


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file's content at once: temporary name, sync of file and folder, rename.

    A link at the path is replaced and not followed.

    Raises:
        OSError: if it cannot be written; the path is then as it was.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        error.filename = str(path)
        raise
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make a rename in a directory last through a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write an object as indented JSON at once; numbers that are not finite become null."""
    encoded = json.dumps(finite_or_null(content), indent=2, allow_nan=False) + "\n"
    write_atomically(path, encoded.encode())


def parse_json(text: str | bytes, **numbers: Any) -> Any:
    """Parse JSON that a stranger may have written.

    Args:
        text: the JSON.
        numbers: how numbers are parsed, as `json.loads` takes it.

    Raises:
        ValueError: if the text is no JSON, or nested too deeply.
    """
    try:
        return json.loads(text, **numbers)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def parse_finite_json(text: str | bytes) -> Any:
    """Parse JSON in which numbers are finite, and whole ones have 64 bits, as all of ours are.

    Raises:
        ValueError: if the text is nothing of the kind, or nested too deeply.
    """
    finite = {"parse_constant": _finite_number, "parse_float": _finite_number}
    return parse_json(text, parse_int=_whole_number, **finite)


def _finite_number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number that is not finite")
    return number


def _whole_number(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= int(text) < 2**64:
        raise ValueError("a number of more than 64 bits")
    return int(text)


def finite_or_null(value: Any) -> Any:
    """Replace NaN and infinities by None, all the way down, as JSON has no such numbers."""
    if isinstance(value, Mapping):
        return {key: finite_or_null(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_null(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@contextlib.contextmanager
def locked(path: Path, when_taken: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of a file for a `with` block.

    The system releases it when its owner ends, however that happens. The file is removed at the end
    of the block; after a kill it stays, and locks nothing. On a file system that has no locks, the
    block runs without one.

    Args:
        path: the file, made with its folders if missing.
        when_taken: called with the owner's process id and host if another process holds the lock,
            once. If it returns, the lock is waited for.

    Raises:
        OSError: if the file cannot be made.
    """
    descriptor = _open_locked(path, when_taken)
    try:
        with contextlib.suppress(OSError):  # on a full disk the lock holds, but has no name on it
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _open_locked(path: Path, when_taken: Callable[[str], None]) -> int:
    waiting = False
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = open_inside(path.parent, path, os.O_RDWR | os.O_CREAT)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not waiting:
                    when_taken(_read_owner(descriptor))
                waiting = True
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in _NO_LOCKS_HERE:
                    raise
            # An owner removes the file before it lets go: then this is no longer the file's lock.
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _read_owner(descriptor: int) -> str:
    named = os.read(descriptor, 200).decode(errors="replace").strip()
    return named if named and named.isprintable() else "another process"
