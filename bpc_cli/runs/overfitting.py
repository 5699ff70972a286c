"""Whether a run that overfits one batch has learnt it: how far its losses have fallen."""

from collections.abc import Mapping
from statistics import fmean

import numpy as np

from bpc_cli.data.datasets import Dataset
from bpc_cli.evaluation.metrics import METRICS
from bpc_cli.runs.directory import RunDirectory

_NEARLY = 0.1  # of what a loss was at first above the least possible, which may be left of it


def least_generator_loss(dataset: Dataset, std: float) -> float:
    """Compute the least that the generator's loss on all training images can be.

    It generates one image for a label, at best the mean of the label's images x:
    ½ · mean over pixels of (x - mean of x's class)², in network units.

    Args:
        dataset: the data set.
        std: what pixels in [0, 1] are divided by.
    """
    images, labels = dataset.train_images / (255 * std), dataset.train_labels
    left = sum(
        float(np.sum((own - own.mean(axis=0)) ** 2))
        for own in (images[labels == label] for label in np.unique(labels))
    )
    return left / images.size / 2


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
