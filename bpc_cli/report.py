"""bpc-report: run directories → one page, its figures, and a table of every run and seed."""

import argparse
import functools
import importlib.metadata
import os
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from bpc_cli.errors import UserError, one_line
from bpc_cli.files import check_inside, write_atomically
from bpc_cli.process import interruptible

_PAGE = "index.html"
_TABLE = "results.csv"


def main() -> None:
    """Run the `bpc-report` command."""
    arguments = _parse(sys.argv[1:])
    try:
        output = arguments.output or _default_output(arguments.directories)
        make = functools.partial(report, arguments.directories, output, arguments.watch)
        interruptible(make)
        while arguments.watch is not None:
            time.sleep(arguments.watch)
            interruptible(make)
    except (UserError, OSError) as error:
        print(f"bpc-report: {one_line(error)}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("bpc-report: interrupted", file=sys.stderr)
        sys.exit(130)


def report(directories: Sequence[Path], output: Path, refresh: float | None = None) -> None:
    """Compare the runs at or below directories: write a page, its figures and a table.

    A run that cannot be read is listed as that, whatever is in its directory.

    Args:
        directories: run directories, sweep directories, or any above them.
        output: the folder to write to, made if missing.
        refresh: seconds after which a browser is to load the page again; None for never.

    Raises:
        UserError: if there are no runs, or a link leads from output out of the directories.
        OSError: if something cannot be written.
    """
    # Imported here, so that a wrong command line is rejected without waiting for Matplotlib.
    from bpc_cli.reporting.configurations import compare
    from bpc_cli.reporting.evaluations import add_evaluations, find_evaluations
    from bpc_cli.reporting.figures.save import save_figures
    from bpc_cli.reporting.finding import find_runs
    from bpc_cli.reporting.page import make_page
    from bpc_cli.reporting.reader import read_run
    from bpc_cli.reporting.tables import results_table
    from bpc_cli.reporting.text import path_in_words

    for directory in directories:
        if not directory.is_dir():
            raise UserError(f"there is no directory {directory}")
    folder = _real_folder(output, directories)
    runs = [read_run(path) for path in find_runs(directories)]
    runs = add_evaluations(runs, find_evaluations(directories))
    if not runs and refresh is None:
        names = ", ".join(str(directory) for directory in directories)
        raise UserError(f"there are no runs in {names}: give run or sweep directories")
    comparison = compare(runs)
    folder.mkdir(parents=True, exist_ok=True)
    figures = save_figures(comparison, folder)
    write_atomically(folder / _TABLE, results_table(runs).encode())
    write_atomically(folder / _PAGE, make_page(comparison, figures, folder, refresh).encode())
    print(
        f"{len(runs)} runs, {len(comparison.unfinished)} of them not finished: "
        f"{path_in_words(os.path.relpath(output / _PAGE))}",
        flush=True,
    )


def _default_output(directories: Sequence[Path]) -> Path:
    """Choose where a report goes: into the one directory that it is about, or a new one."""
    if len(directories) == 1:
        return directories[0] / "report"
    return Path("outputs") / "report" / datetime.now().strftime("%Y-%m-%d/%H-%M-%S-%f")


def _real_folder(output: Path, directories: Sequence[Path]) -> Path:
    """Find where a report really goes: in a directory that it is about, no link is followed out.

    Raises:
        UserError: if a link leads out.
    """
    place = os.path.abspath(output)
    about = [each for each in directories if Path(place).is_relative_to(os.path.abspath(each))]
    try:
        return check_inside(about[0] if about else output, output)
    except OSError as error:
        raise UserError(f"{one_line(error)}: choose another place by --output") from error


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = _OneLineParser(
        prog="bpc-report",
        description="Compare runs: one self-contained page with the trade-off over "
        "whatever was swept, learning curves, samples, a table and what failed; its figures as "
        "PNG, SVG and PDF; and results.csv, a row for each run and seed.",
    )
    parser.add_argument(
        "directories", nargs="+", type=Path, metavar="DIR", help="run or sweep directories"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="where to write (default: DIR/report; for several, a folder under outputs/report)",
    )
    parser.add_argument(
        "--watch",
        nargs="?",
        type=_seconds,
        const=10.0,
        metavar="SECONDS",
        help="write it again every so many seconds (default: 10), until Ctrl-C",
    )
    version = importlib.metadata.version("bpc-cli")
    parser.add_argument("--version", action="version", version=f"bpc-report {version}")
    return parser.parse_args(words)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 1 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError("must be between 1 and 86400 seconds")
    return seconds


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message}; --help explains\n")


if __name__ == "__main__":
    from bpc_cli.console import bpc_report

    bpc_report()
