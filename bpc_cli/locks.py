"""One owner at a time: locks on files, which end with their owner's process."""

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

_NO_LOCKS_HERE = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


@contextlib.contextmanager
def locked(path: Path, when_taken: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of a file for a `with` block.

    The system releases it when its owner ends, however that happens, so nothing is left to clean
    up; the file itself stays. On a file system that has no locks, the block runs without one.

    Args:
        path: the file, made if missing.
        when_taken: called with the owner's process id and host if another process holds the lock.
            If it returns, the lock is waited for.

    Raises:
        OSError: if the file cannot be made.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            when_taken(_read_owner(descriptor))
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS_HERE:
                raise
        with contextlib.suppress(OSError):  # on a full disk the lock holds, but has no name on it
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        os.close(descriptor)


def _read_owner(descriptor: int) -> str:
    named = os.read(descriptor, 200).decode(errors="replace").strip()
    return named if named and named.isprintable() else "another process"
