"""Signals during training: finish the running chunk, save, and stop."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

from bpc_cli.errors import UserError, one_line

# Ctrl-C, a cluster's end of a job, and what Slurm sends before a time-out.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


GRACE_SECONDS = 10.0  # for what a process has to save


class Stopped(KeyboardInterrupt):
    """A signal asked to stop, and what was running has been finished.

    Args:
        number: the signal's.
    """

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


class StopOnce:
    """Handles a signal of which a cluster may send several: the first one stops the process.

    What has not ended some time later, the cluster kills.

    Attributes:
        came: whether one has come.
        is_ending: whether the process ends already, so that nothing is to be interrupted.
    """

    def __init__(self) -> None:
        self.came = False
        self.is_ending = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Raise Stopped at the first signal."""
        is_first = not (self.came or self.is_ending)
        self.came = True
        if is_first:
            raise Stopped(number)


class StopRequest:
    """Whether a signal has asked to stop.

    Args:
        handlers: what others do at a signal, such as a cluster's launcher, which puts a job that is
            about to be timed out back into its queue.
    """

    def __init__(self, handlers: Mapping[int, Callable[[int, FrameType | None], Any]]):
        self.number: int | None = None
        self.handlers = handlers

    def __bool__(self) -> bool:
        return self.number is not None

    def handle(self) -> None:
        """Raise Stopped if a signal has asked to stop, or call who had been waiting for it.

        Raises:
            Stopped: if nobody else had.
            UserError: if who had been waiting raises an exception.
        """
        if self.number is None:
            return
        number, handler = self.number, self.handlers.get(self.number)
        if handler is None:
            raise Stopped(number)
        self.number = None
        try:
            handler(number, None)
        except Exception as error:
            raise UserError(one_line(error)) from error


@contextlib.contextmanager
def deferred_signals() -> Iterator[StopRequest]:
    """Hold back the first signal of a `with` block; a second one ends the process at once.

    Raised at once, an exception can land in a finaliser or a callback, where Python drops it. And
    Python's own handlers wait for compiled code to return, so a thread is told of signals instead.
    Signals that somebody else handles are held back too, and handed over at the next `handle`.

    Yields:
        What becomes true when a signal has been held back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield StopRequest({})  # only the main thread may handle signals
        return
    handlers = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGUSR2)}
    request = StopRequest(
        {
            number: handler
            for number, handler in handlers.items()
            if callable(handler)
            and handler is not signal.default_int_handler
            and not isinstance(handler, StopOnce)
        }
    )
    once: dict[int, StopOnce] = {
        n: handler for n, handler in handlers.items() if isinstance(handler, StopOnce)
    }
    held_back = {*SIGNALS, *request.handlers}

    def watch() -> None:
        while byte := os.read(reader, 1):
            number = byte[0]
            if number not in held_back:
                continue
            is_ours = number not in request.handlers
            if number in once:
                once[number].came = True
                if request:
                    continue
            if request and is_ours:
                os._exit(128 + number)
            request.number = number
            then = "stopping" if is_ours else "telling the launcher"
            if is_ours and number not in once:
                then += "; a second signal stops at once"
            notice = f"{signal.Signals(number).name}: saving and {then}\n"
            with contextlib.suppress(OSError):
                os.write(sys.stderr.fileno(), notice.encode())

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    previous_writer = signal.set_wakeup_fd(writer)
    previous = {each: signal.signal(each, lambda *_: None) for each in held_back}
    try:
        yield request
    except BaseException:
        for handler in once.values():
            handler.is_ending = True
        raise
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)
        signal.set_wakeup_fd(previous_writer)
        os.close(writer)
        watcher.join()
        os.close(reader)
    request.handle()


def stop_with_parent(parent: int) -> None:
    """Stop this process, as SIGTERM stops it, when its parent process has ended.

    A worker would go on, and then wait for its next job for ever. What has not stopped some seconds
    after the signal is ended.

    Args:
        parent: the process id of the parent.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_SECONDS)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
