"""How a run can end before its time, and the line that says so."""

import math
from collections.abc import Collection, Mapping, Sequence
from statistics import fmean

from bpc_cli.core.learning import StepMetrics
from bpc_cli.errors import UserError
from bpc_cli.evaluation.metrics import METRICS, TEST_METRICS
from bpc_cli.evaluation.statistics import MetricsLine
from bpc_cli.runs.directory import RunDirectory
from bpc_cli.runs.signals import Stopped


class DivergedError(UserError):
    """A loss, an energy or a weight that is no longer finite."""


class UnstableError(UserError):
    """A sign of bad health, where that is to end the run."""


class PrunedError(UserError):
    """Other runs of a search do better."""

    is_planned = True


class SweepEndedError(UserError):
    """Another run of the sweep failed, and was to end it."""


_NEARLY = 0.1  # of what a loss was at first above the least possible, which may be left of it
_STATUS = {
    Stopped: "interrupted",
    KeyboardInterrupt: "interrupted",
    SystemExit: "interrupted",  # by a cluster's launcher, which puts the job back into its queue
    DivergedError: "diverged",
    UnstableError: "unstable",
    PrunedError: "pruned",
    SweepEndedError: "interrupted",
}


def status_after(error: BaseException) -> str:
    """Name the status of a run that an error ended."""
    return _STATUS.get(type(error), "failed")


def diverged(
    iteration: int, broken: Collection[str], lines: Sequence[MetricsLine], saved: int | None
) -> DivergedError:
    """Make the error of a run in which numbers are no longer finite.

    Args:
        iteration: the first at which they are not.
        broken: the names of these numbers.
        lines: that iteration's metrics lines, a line per seed.
        saved: the iteration of the last checkpoint, if there is one.
    """
    seeds = [
        str(line["seed"])
        for line in lines
        if len(lines) > 1 and not all(is_finite(line[name]) for name in broken)
    ]
    in_seeds = f" (seed {', '.join(seeds)})" if seeds else ""
    known = [*StepMetrics.__annotations__, "weights", *(m.name for m in TEST_METRICS)]
    names = [name for name in known if name in broken]
    return DivergedError(
        f"training diverged: at iteration {iteration}{in_seeds} {', '.join(names)} "
        f"{'is' if len(names) == 1 else 'are'} no longer finite; "
        f"lower optim.param_lr or optim.activity_lr ({what_is_kept(saved)})"
    )


def what_is_kept(saved: int | None) -> str:
    """Say what a run that ends keeps, given the iteration of its last checkpoint."""
    if saved is None:
        return "no checkpoint had been saved yet"
    return f"the state of iteration {saved} is in checkpoints/last.ckpt"


def is_finite(value: float | None) -> bool:
    """Tell whether a number of a metrics line is there and finite."""
    return value is not None and math.isfinite(value)


def report_fit(least: Mapping[str, float], run: RunDirectory) -> None:
    """Report how far losses have fallen, with a warning if that is not nearly as far as they can.

    Args:
        least: the least that each loss can be, by its name; of ordinary runs empty.
        run: the run's directory.
    """
    if not least:
        return
    lines = run.read_metrics()
    ends = lines[0]["iteration"], lines[-1]["iteration"]
    words, is_learnt = [], True
    for name, lowest in least.items():
        first, last = (
            fmean(float(line[name] or 0.0) for line in lines if line["iteration"] == end)
            for end in ends
        )
        left = (last - lowest) / max(first - lowest, 1e-12)
        is_learnt = is_learnt and left < _NEARLY
        words.append(
            f"{METRICS[name].title} {first:.4g} → {last:.4g} (at least {lowest:.4g}; "
            f"{100 * left:.1f} % is left)"
        )
    if is_learnt:
        run.report(f"the batch has been learnt: {', '.join(words)}")
    else:
        run.warn(f"the batch has not been learnt: {', '.join(words)}")
