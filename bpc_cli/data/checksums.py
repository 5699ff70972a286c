"""SHA-256 of files and of what gzip files hold, computed once in a process unless they change."""

import functools
import gzip
import hashlib
import threading
import zlib
from pathlib import Path

_BLOCK = 2**24  # bytes; between blocks a thread waits for its turn
_FILES = threading.Lock()  # who wants a checksum that another thread computes waits for it


def file_checksum(path: Path) -> str:
    """Compute the SHA-256 of a file.

    Raises:
        OSError: if it cannot be read.
    """
    status = path.stat()
    with _FILES:
        return _file_checksum(path, status.st_size, status.st_mtime_ns)


def content_checksum(path: Path, at_most: int) -> str | None:
    """Compute the SHA-256 of what a gzip file holds, whatever its header and compression.

    Args:
        path: the file.
        at_most: bytes of content; a file may hold a thousand times its own size.

    Returns:
        The checksum; None if it is not a whole gzip file, or holds more.

    Raises:
        OSError: if it cannot be read.
    """
    status = path.stat()
    return _content_checksum(path, status.st_size, status.st_mtime_ns, at_most)


@functools.cache
def _file_checksum(path: Path, _size: int, _changed: int) -> str:
    checksum, block = hashlib.sha256(), memoryview(bytearray(_BLOCK))
    with path.open("rb", buffering=0) as file:
        while n_read := file.readinto(block):
            checksum.update(block[:n_read])
    return checksum.hexdigest()


@functools.cache
def _content_checksum(path: Path, _size: int, _changed: int, at_most: int) -> str | None:
    checksum, length = hashlib.sha256(), 0
    try:
        with gzip.open(path) as file:
            while block := file.read(1 << 20):
                length += len(block)
                if length > at_most:
                    return None
                checksum.update(block)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        return None
    return checksum.hexdigest()
