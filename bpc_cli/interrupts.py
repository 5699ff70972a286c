"""Signals during training: finish the running chunk, save, and stop."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

# Ctrl-C, a cluster's end of a job, and what Slurm sends before a time-out.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Stopped(KeyboardInterrupt):
    """A signal asked to stop, and what was running has been finished.

    Args:
        number: the signal's.
    """

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


class StopRequest:
    """Whether a signal has asked to stop."""

    def __init__(self) -> None:
        self.number: int | None = None

    def __bool__(self) -> bool:
        return self.number is not None

    def obey(self) -> None:
        """Raise Stopped if a signal has asked to stop."""
        if self.number is not None:
            raise Stopped(self.number)


@contextlib.contextmanager
def deferred_signals() -> Iterator[StopRequest]:
    """Hold back the first signal of a `with` block; a second one ends the process at once.

    Raised at once, an exception can land in a finaliser or a callback, where Python drops it. And
    Python's own handlers wait for compiled code to return, so a thread is told of signals instead.

    Yields:
        What becomes true when a signal has been held back.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request  # only the main thread may handle signals
        return

    def watch() -> None:
        while byte := os.read(reader, 1):
            number = byte[0]
            if number not in SIGNALS:
                continue
            if request:
                os._exit(128 + number)
            request.number = number
            name = signal.Signals(number).name
            notice = f"{name}: saving and stopping; a second signal stops at once\n"
            with contextlib.suppress(OSError):
                os.write(sys.stderr.fileno(), notice.encode())

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    previous_writer = signal.set_wakeup_fd(writer)
    previous = {each: signal.signal(each, lambda *_: None) for each in SIGNALS}
    try:
        yield request
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)
        signal.set_wakeup_fd(previous_writer)
        os.close(writer)
        watcher.join()
        os.close(reader)
    request.obey()
