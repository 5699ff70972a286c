"""Ctrl-C during training: finish what is running, keep it, and stop."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

_NOTICE = b"stopping at the next test point; Ctrl-C again stops at once\n"


@contextlib.contextmanager
def deferred_interrupts() -> Iterator[Callable[[], None]]:
    """Hold the first SIGINT of a `with` block back; a second one ends the process as usual.

    Raised at once, KeyboardInterrupt can land in a finaliser or a callback, where Python drops it.

    Yields:
        A function that raises KeyboardInterrupt if a SIGINT has been held back.
    """
    held = False

    def hold(_signal: int, _frame: object) -> None:
        nonlocal held
        held = True
        signal.signal(signal.SIGINT, previous)
        os.write(sys.stderr.fileno(), _NOTICE)

    def raise_if_held() -> None:
        if held:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield raise_if_held  # only the main thread may handle signals
        return
    previous = signal.signal(signal.SIGINT, hold)
    try:
        yield raise_if_held
    finally:
        signal.signal(signal.SIGINT, previous)
