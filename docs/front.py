"""Draw the picture at the top of the README: `python docs/front.py RUN SWEEP docs/front.png`.

RUN is a run of `experiment=best_mnist`, and SWEEP that of `make tradeoff`.
"""

import sys
from pathlib import Path

from matplotlib.figure import Figure

import bpc_cli
from bpc_cli.evaluation.metrics import METRICS
from bpc_cli.reporting.configurations import WEIGHT, compare
from bpc_cli.reporting.finding import find_runs
from bpc_cli.reporting.reader import read_run


def main() -> None:
    run, sweep, target = map(Path, sys.argv[1:])
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    digits, curves = figure.subfigures(1, 2, width_ratios=[1.5, 2])
    model, _ = bpc_cli.load(run)
    for axes, image in zip(digits.subplots(2, 5).flat, model.generate(range(10)), strict=True):
        axes.imshow(image[..., 0], cmap="gray", vmin=0, vmax=1)
        axes.set_axis_off()
    comparison = compare([read_run(path) for path in find_runs([sweep])])
    for axes, name in zip(
        curves.subplots(1, 2), ("test_accuracy", "generation_error"), strict=True
    ):
        spreads = [each.spreads[name] for each in comparison.configurations]
        bars = [[s.mean - s.low for s in spreads], [s.high - s.mean for s in spreads]]
        weights = [each.options[WEIGHT] for each in comparison.configurations]
        means = [s.mean for s in spreads]
        axes.errorbar(weights, means, bars, marker="o", markersize=4, capsize=3, color="#2a7f9e")
        axes.set(xscale="log", xlabel="α_f", ylabel=METRICS[name].axis_label())
        axes.grid(alpha=0.3)
    figure.savefig(target, dpi=110)


main()
