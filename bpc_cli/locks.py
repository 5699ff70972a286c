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
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
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
