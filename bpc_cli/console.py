"""What the console scripts import, and nothing else does: from here on Ctrl-C leaves no traceback.

That is why as little as possible is imported before the handler is set, and why it is set by the
import.
"""

import importlib
import os
import signal
import sys
from types import FrameType
from typing import Any, NoReturn


def bpc_train() -> None:
    """Run the `bpc-train` command."""
    _run("bpc-train", "bpc_cli.train")


def bpc_eval() -> None:
    """Run the `bpc-eval` command."""
    _run("bpc-eval", "bpc_cli.evaluate")


def bpc_report() -> None:
    """Run the `bpc-report` command."""
    _run("bpc-report", "bpc_cli.report")


def _stop_at_once(number: int, frame: FrameType | None) -> NoReturn:
    """End the process while nothing has been made, or once all is done: nothing is to be undone."""
    try:
        os.write(2, f"{os.path.basename(sys.argv[0])}: interrupted\n".encode())
    finally:
        os._exit(128 + number)


# A shell's background jobs ignore Ctrl-C.
_IS_HEEDED = signal.getsignal(signal.SIGINT) is signal.default_int_handler
if _IS_HEEDED:
    signal.signal(signal.SIGINT, _stop_at_once)


def _run(command: str, module: str) -> NoReturn:
    """Run a command, and exit with its code; whatever ends it, a line at most says so."""
    from bpc_cli.process import has_lost_output, has_work_left, prepare_streams

    prepare_streams()
    debugging = bool(os.environ.get("HYDRA_FULL_ERROR"))
    code: Any = 0
    try:
        main = importlib.import_module(module).main
        if _IS_HEEDED:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        main()
    except SystemExit as error:
        code = error.code or 0
    except KeyboardInterrupt:
        code = _say(command, "interrupted", 128 + signal.SIGINT)
    except MemoryError:
        code = _say(command, "there is not enough memory (see `ulimit -v`, or the job's limit)")
    except ImportError as error:
        if debugging:
            raise
        if _comes_of_interrupt(error):
            _say(command, "interrupted")
            os._exit(128 + signal.SIGINT)  # what is half imported may crash as Python ends
        code = _say(command, f"{error}: install it again, or give the process more memory")
    if _IS_HEEDED:
        signal.signal(signal.SIGINT, _stop_at_once)
    sys.stdout.flush()
    sys.stderr.flush()
    prints_alone = any(word.startswith(_PRINTS_ALONE) for word in sys.argv[1:])
    if code == 0 and prints_alone and has_lost_output():
        code = 1
    if has_work_left():
        os._exit(code)  # Python would end in a crash under a thread that is in compiled code
    sys.exit(code)


_PRINTS_ALONE = (
    *("-h", "--help", "--version", "-c", "--cfg", "--info", "--hydra-help", "--dry-run", "--where"),
)


def _comes_of_interrupt(error: BaseException | None) -> bool:
    """Tell whether Ctrl-C is behind an error, as of a library that was being imported."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _say(command: str, line: str, code: int = 1) -> int:
    print(f"{command}: {line}", file=sys.stderr)
    return code
