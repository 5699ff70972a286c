"""Run a command of ours that kills itself at a rename, as a power cut there would.

    python tests/kill_at_rename.py N before|after train|evaluate|report ARGUMENTS…

The N-th rename to a name below the working directory ends the command by SIGKILL, just before or
just after it is done. Renames are counted over all of the command's processes, such as a launcher's
workers, and all of them are killed. A command that renames less often ends as it always does.
"""

import contextlib
import importlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

PROGRAMS = {"train": "bpc-train", "evaluate": "bpc-eval", "report": "bpc-report"}
_PLAN = "KILL_AT_RENAME"
_LEDGER = ".kill_at_rename"


def main() -> None:
    number, moment, command, *arguments = sys.argv[1:]
    assert moment in ("before", "after")
    ledger = Path(_LEDGER).absolute()
    shutil.rmtree(ledger, ignore_errors=True)
    ledger.mkdir()
    # Python imports this when any other process of the command starts.
    (ledger / "sitecustomize.py").write_text(
        f"import runpy\nrunpy.run_path({str(Path(__file__).absolute())!r})['kill_as_planned']()\n"
    )
    os.environ[_PLAN] = json.dumps([int(number), moment, str(ledger)])
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(ledger), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    kill_as_planned()
    sys.path.pop(0)  # this folder, which an installed command does not see
    sys.argv = [str(Path(sys.executable).with_name(PROGRAMS[command])), *arguments]
    importlib.import_module(f"bpc_cli.{command}").main()


def kill_as_planned() -> None:
    """Take part in the plan that the environment holds: every rename of this process counts."""
    number, moment, folder = json.loads(os.environ[_PLAN])
    ledger = Path(folder)

    def enlist() -> None:
        _append(ledger / "processes", f"{os.getpid()}\n")

    def counted(rename: Callable[..., None]) -> Callable[..., None]:
        def count_and_rename(source, target, **more) -> None:
            is_below = Path(os.path.abspath(os.fspath(target))).is_relative_to(ledger.parent)
            is_the_one = is_below and _append(ledger / "renames", ".") == number
            if is_the_one and moment == "before":
                _kill_all(ledger)
            rename(source, target, **more)
            if is_the_one:
                _kill_all(ledger)

        return count_and_rename

    enlist()
    os.register_at_fork(after_in_child=enlist)
    os.rename, os.replace = counted(os.rename), counted(os.replace)


def _append(path: Path, text: str) -> int:
    """Append to a file that several processes append to; return how long it is then."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, text.encode())
        return os.lseek(descriptor, 0, os.SEEK_CUR)
    finally:
        os.close(descriptor)


def _kill_all(ledger: Path) -> None:
    """Kill all processes of the command, this one last."""
    enlisted = {int(line) for line in (ledger / "processes").read_text().split()}
    for process in sorted(enlisted - {os.getpid()}):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
