"""How a run ended: its summary, and its final metrics in words."""

import functools
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bpc_cli.evaluation.metrics import TEST_METRICS, Metric
from bpc_cli.evaluation.statistics import MetricsLine, Spread, mean_line, spread, spreads, whole
from bpc_cli.files import JsonObject
from bpc_cli.runs.device import device_kind, peak_memory
from bpc_cli.runs.directory import git_commit
from bpc_cli.runs.health import Finding
from bpc_cli.runs.plan import Plan

_PACKAGES = ("bpc-cli", "jax", "jaxlib", "equinox", "optax", "numpy", "hydra-core")

Lines = Sequence[MetricsLine]


def summarise(
    outcome: tuple[str, str | None],
    final: Lines | None,
    best: Lines | None,
    plan: Plan,
    seconds: Mapping[str, float | None],
    health: Sequence[Finding],
) -> JsonObject:
    """Make a run's summary.

    Args:
        outcome: how it ended, and why, if not as planned.
        final, best: the last and the best test point's metrics lines, a line per seed.
        plan: what it was to do.
        seconds: where its time went.
        health: signs of bad health that were seen.
    """
    several = final if final is not None and len(final) > 1 else None
    return {
        "status": outcome[0],
        "reason": outcome[1],
        "health": [
            {
                "sign": finding.sign,
                "since": finding.since,
                "seeds": finding.seeds,
                "line": finding.in_a_line(of_several=several is not None),
            }
            for finding in health
        ],
        "final": None if final is None else mean_line(final),
        "best": None if best is None else mean_line(best),
        **({"final_spread": spreads(several), "seeds": several} if several else {}),
        "data": {
            "name": plan.dataset.name,
            "train_examples": plan.n_examples,
            "test_examples": len(plan.dataset.test_images),
            "fallback": plan.dataset.fallback,
        },
        "seconds": seconds,
        "peak_memory_mib": round(peak_memory() / 2**20),
        "versions": software_versions(),
        "device": device_kind(plan.n_devices),
        "git_commit": git_commit(Path(__file__).parent),
        "ended": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    }


def closing_words(data_set: str, final: Lines) -> str:
    """Report a run's final metrics in a line."""
    words = [
        _in_words(metric, spread([float(line[metric.name] or 0.0) for line in final]))
        for metric in TEST_METRICS
        if all(line.get(metric.name) is not None for line in final)
    ]
    return f"{data_set}: {', '.join(words)}{of_seeds(final)}"


def of_seeds(lines: Lines) -> str:
    """Say that metrics are means, where they are."""
    seeds = {line["seed"] for line in lines}
    return "" if len(seeds) == 1 else f" (mean of {which_seeds(lines)})"


def which_seeds(lines: Lines) -> str:
    """Name the seeds of metrics lines, such as "seeds 0 to 7"."""
    seeds = sorted({whole(line, "seed") for line in lines})
    return f"seed={seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"


def _in_words(metric: Metric, values: Spread) -> str:
    def written(value: float | None) -> str:
        return f"{value:.{metric.decimals}f}"

    words = f"{metric.title} {written(values.mean)}"
    if values.low is not None:
        words += f" ± {written(values.std)} [{written(values.low)}, {written(values.high)}]"
    if metric.unit == "%":
        return f"{words} %"
    return f"{words} ({metric.unit})" if metric.unit else words


@functools.cache
def software_versions() -> dict[str, str]:
    """Name the versions that a run's numbers depend on."""
    packages = {package: version(package) for package in _PACKAGES}
    return {"python": platform.python_version(), **packages}
