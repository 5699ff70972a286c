"""What a command's process has to do with those around it: standard streams, and Ctrl-C."""

import codecs
import contextlib
import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TextIO, TypeVar

T = TypeVar("T")

# What an output that has ASCII alone gets in place of the signs that are printed most.
_STAND_INS = {"±": "+-", "→": "->", "…": "...", "–": "-", "½": "1/2", "×": "x", "α": "alpha"}
_ERRORS = "bpc_stand_ins"
_WORKER = "bpc-work"


def prepare_streams() -> None:
    """Let standard output and error take whatever is printed, wherever they lead.

    A closed one is opened on the null device, else the next file that is opened would take its
    place, and what is printed would go there. One that cannot be written any more is dropped: work
    does not end because nobody reads what it says. Signs that a stream's encoding lacks are
    replaced.
    """
    codecs.register_error(_ERRORS, _stand_in)
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            _lead_nowhere(number)
    sys.stdout = _forgiving(sys.stdout, 1)
    sys.stderr = _forgiving(sys.stderr, 2)


def interruptible(work: Callable[[], T]) -> T:
    """Do work in a thread, while this one waits for it and hears Ctrl-C at once.

    In the thread that hears it, an interruption waits until compiled code returns, and Python drops
    it where it lands in a callback or a finaliser.

    Returns:
        What the work returns.

    Raises:
        KeyboardInterrupt: at Ctrl-C; the work ends with the process.
        BaseException: what the work raises.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    returned: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            returned.append(work())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, name=_WORKER, daemon=True)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
    return returned[0]


@contextlib.contextmanager
def prefixed_output(prefix: str) -> Iterator[None]:
    """Begin every line that is printed in a `with` block with a prefix."""
    stream = _Prefixing(sys.stdout, prefix) if prefix else sys.stdout
    with contextlib.redirect_stdout(stream):
        yield


def has_work_left() -> bool:
    """Tell whether work that was interrupted is still going on in its thread."""
    return any(thread.name == _WORKER for thread in threading.enumerate())


def has_lost_output() -> bool:
    """Tell whether standard output could not take what was printed, but for a reader that left."""
    return _Outlet.lost


class _Prefixing(io.TextIOBase):
    """Hands lines on to a stream, each with a prefix."""

    def __init__(self, stream: TextIO, prefix: str):
        self._stream = stream
        self._prefix = prefix
        self._begins = True

    def write(self, text: str) -> int:
        for line in text.splitlines(keepends=True):
            self._stream.write(f"{self._prefix}{line}" if self._begins else line)
            self._begins = line.endswith("\n")
        return len(text)

    def flush(self) -> None:
        self._stream.flush()


class _Outlet(io.FileIO):
    """A standard stream that leads nowhere from when it cannot be written any more.

    A reader that has had enough is no news; a full disk is said once.

    Attributes:
        lost: whether anything that was printed has been lost so, in this process.
    """

    lost = False

    def write(self, data: Any) -> int | None:
        try:
            return super().write(data)
        except OSError as error:
            _lead_nowhere(self.fileno())
            if not isinstance(error, BrokenPipeError) and self.fileno() == 1:
                _Outlet.lost = True
                lost = f"what is printed from here on is lost ({error.strerror})"
                print(f"WARNING: standard output cannot be written: {lost}", file=sys.stderr)
            return len(data)


def _forgiving(stream: TextIO | None, number: int) -> TextIO:
    """Make a standard stream anew, as Python made it, but one that fails nobody who prints."""
    if stream is None:
        outlet = _Outlet(number, "w", closefd=False)
        return io.TextIOWrapper(io.BufferedWriter(outlet), encoding="utf-8", errors=_ERRORS)
    if not isinstance(stream, io.TextIOWrapper) or stream.fileno() != number:
        return stream  # somebody else's
    if stream.errors == _ERRORS:
        return stream  # made anew already
    stream.flush()
    outlet = _Outlet(number, "w", closefd=False)
    is_buffered = not isinstance(stream.buffer, io.FileIO)  # as it is under $PYTHONUNBUFFERED
    return io.TextIOWrapper(
        io.BufferedWriter(outlet) if is_buffered else outlet,  # pyright: ignore[reportArgumentType]
        encoding=stream.encoding,
        errors=_ERRORS,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _lead_nowhere(number: int) -> None:
    """Open a standard stream's descriptor on the null device, for child processes too."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)
    os.set_inheritable(number, True)


def _stand_in(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replace a sign that an encoding lacks by one that looks like it, or by its number."""
    assert isinstance(error, UnicodeEncodeError)
    sign = error.object[error.start]
    if sign in _STAND_INS:
        return _STAND_INS[sign], error.start + 1
    first = UnicodeEncodeError(
        error.encoding, error.object, error.start, error.start + 1, error.reason
    )
    return codecs.backslashreplace_errors(first)
