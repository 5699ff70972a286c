"""How a run ended: its summary, and its figures in words."""

import functools
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from bpc_cli.data.datasets import Dataset
from bpc_cli.evaluation.statistics import Spread, mean_line, spread, spreads
from bpc_cli.runs.directory import git_commit
from bpc_cli.runs.memory import peak_memory

_PACKAGES = ("bpc-cli", "jax", "jaxlib", "equinox", "optax", "numpy", "hydra-core")

Lines = Sequence[dict[str, Any]]


def summarise(
    status: str,
    reason: str | None,
    final: Lines | None,
    best: Lines | None,
    dataset: Dataset,
    seconds: Mapping[str, float | None],
) -> dict[str, Any]:
    """Make a run's summary.

    Args:
        status: how it ended.
        reason: why, if not as planned.
        final, best: the last and the best test point's metrics lines, a line per seed.
        dataset: the data set really used.
        seconds: where its time went.
    """
    several = final if final is not None and len(final) > 1 else None
    return {
        "status": status,
        "reason": reason,
        "final": None if final is None else mean_line(final),
        "best": None if best is None else mean_line(best),
        **({"final_spread": spreads(several), "seeds": several} if several else {}),
        "data": {
            "name": dataset.name,
            "train_examples": len(dataset.train_images),
            "test_examples": len(dataset.test_images),
            "fallback": dataset.fallback,
        },
        "seconds": seconds,
        "peak_memory_mib": round(peak_memory() / 2**20),
        "versions": software_versions(),
        "device": device_kind(),
        "git_commit": git_commit(Path(__file__).parent),
    }


def closing_words(data_set: str, final: Lines) -> str:
    """Tell a run's final figures in a line."""
    accuracy = spread([line["test_accuracy"] for line in final])
    error = spread([line["generation_error"] for line in final])
    return (
        f"{data_set}: test accuracy {_in_words(accuracy, 2)} %, "
        f"generation error {_in_words(error, 4)} (RMSE, pixels in [0, 1]){of_seeds(final)}"
    )


def of_seeds(lines: Lines) -> str:
    """Say that figures are means, where they are."""
    seeds = {line["seed"] for line in lines}
    return "" if len(seeds) == 1 else f" (mean of {which_seeds(lines)})"


def which_seeds(lines: Lines) -> str:
    """Name the seeds of metrics lines, such as "seeds 0 to 7"."""
    seeds = sorted({line["seed"] for line in lines})
    return f"seed={seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"


def _in_words(figure: Spread, decimals: int) -> str:
    if figure.low is None:
        return f"{figure.mean:.{decimals}f}"
    return (
        f"{figure.mean:.{decimals}f} ± {figure.std:.{decimals}f} "
        f"[{figure.low:.{decimals}f}, {figure.high:.{decimals}f}]"
    )


@functools.cache
def software_versions() -> dict[str, str]:
    """Name the versions that a run's numbers depend on."""
    packages = {package: version(package) for package in _PACKAGES}
    return {"python": platform.python_version(), **packages}


def device_kind() -> str:
    """Name the kind of device that JAX uses."""
    return str(jax.devices()[0].device_kind)
