"""Diagnostics → figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bpc_cli.diagnostics.landscape import Landscape
from bpc_cli.plots import label_log_axis_plainly


def save_inference(path: Path, numbers: Mapping[str, Any], moved: float) -> None:
    """Save energies per layer and direction, movement and gradient over inference steps."""
    figure = _new_figure((12, 3.9))
    energies, movement, gradient = figure.subplots(1, 3)
    depth = len(numbers["generator_terms"]["mean"][0])
    for name, style in (("generator", "-"), ("amortiser", "--")):
        means, stds = (np.asarray(numbers[f"{name}_terms"][k]) for k in ("mean", "std"))
        for layer in range(depth):
            number = layer if name == "generator" else layer - 1
            where = f"z{number}" if 0 <= number < depth - 1 else "image"
            where = "label" if number < 0 else where
            _band(energies, means[:, layer], stds[:, layer], style, f"{name} at {where}")
    for name, style in (("from_start", "-"), ("from_end", "--")):
        means, stds = (100 * np.asarray(numbers[name][k]) for k in ("mean", "std"))
        _band(movement, means, stds, style, name.replace("_", " "))
    means, stds = (np.asarray(numbers["gradient"][k]) for k in ("mean", "std"))
    _band(gradient, means, stds, "-", None)
    energies.set(ylabel="unweighted energy per image", yscale="log")
    energies.set_ylim(bottom=energies.get_ylim()[1] * 1e-6)
    label_log_axis_plainly(energies.yaxis)
    movement.set(ylabel="activities moved (%)")
    gradient.set(ylabel="root mean square of the gradient")
    energies.legend(fontsize=7)
    movement.legend()
    for axes in (energies, movement, gradient):
        axes.set_xlabel("inference step")
        axes.grid(alpha=0.3)
    verdict = " – inference does next to nothing" if moved < 0.02 else ""
    figure.suptitle(f"Activities move by {100 * moved:.2f} % of where they start{verdict}")
    figure.savefig(path, dpi=110)


def save_steps(path: Path, numbers: Mapping[str, Any]) -> None:
    """Save accuracy by a free label, and the error of a free image, over inference steps."""
    figure = _new_figure((8, 3.4))
    accuracy, error = figure.subplots(1, 2)
    if numbers["relaxed_accuracy"]:
        accuracy.plot(numbers["relaxed_accuracy"])
    else:
        accuracy.text(0.5, 0.5, "no free label under cross-entropy", ha="center")
    error.plot(numbers["relaxed_generation_error"])
    accuracy.set(ylabel="accuracy, label free (%)")
    error.set(ylabel="generation error, image free")
    for axes in (accuracy, error):
        axes.set_xlabel("inference step")
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def save_probe(path: Path, numbers: Mapping[str, Sequence[float]]) -> None:
    """Save a linear probe's accuracy on each hidden layer, where it starts and relaxed."""
    figure = _new_figure((6, 3.4))
    axes = figure.subplots()
    for (name, accuracies), style in zip(numbers.items(), ("o-", "s--"), strict=True):
        axes.plot(range(len(accuracies)), accuracies, style, label=name)
    axes.set_xticks(range(len(numbers["start"])))
    axes.set(xlabel="hidden layer, from the label", ylabel="linear probe's accuracy (%)")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)


def save_completion(path: Path, numbers: Mapping[str, Any]) -> None:
    """Save accuracy and RMSE against the share of pixels hidden, for each hidden part."""
    parts = [name for name in numbers if name != "hidden"]
    figure = _new_figure((4 * len(parts), 6.4))
    panels = figure.subplots(2, len(parts), sharey="row", squeeze=False)
    shares = [100 * share for share in numbers["hidden"]]
    for column, part in enumerate(parts):
        for row, curves in enumerate(
            (
                {"accuracy_by_pass": "by a pass", "accuracy_by_relaxation": "by relaxation"},
                {"rmse_drawn": "the named class, drawn", "rmse": "by relaxation"},
            )
        ):
            axes = panels[row][column]
            for (key, label), style in zip(curves.items(), ("o--", "s-"), strict=True):
                axes.plot(shares, [each[key] for each in numbers[part]], style, label=label)
            axes.grid(alpha=0.3)
            axes.set_xlabel(f"{part} pixels hidden (%)")
    panels[0][0].set_ylabel("accuracy (%)")
    panels[1][0].set_ylabel("RMSE of hidden pixels")
    panels[0][0].legend()
    panels[1][0].legend()
    figure.savefig(path, dpi=110)


def save_completed(
    path: Path,
    true: np.ndarray,
    shown: Sequence[tuple[str, float, np.ndarray, np.ndarray, np.ndarray]],
    image_shape: tuple[int, int, int],
) -> None:
    """Save images with a part hidden, the part as it relaxed, and as the named class is drawn."""
    rows = [("image", true)]
    for part, share, hidden, completed, drawn in shown:
        rows += [
            (f"{part} {100 * share:g} % hidden", np.where(hidden, 0.5, true)),
            ("relaxed", completed),
            ("drawn", drawn),
        ]
    figure = _new_figure((1.0 * len(true) + 1.6, 1.0 * len(rows)))
    panels = figure.subplots(len(rows), len(true), squeeze=False)
    for cells, (name, images) in zip(panels, rows, strict=True):
        for axes, image in zip(cells, images, strict=False):
            picture = np.clip(image, 0, 1).reshape(image_shape)
            axes.imshow(picture[..., 0] if image_shape[2] == 1 else picture, "gray", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
        cells[0].set_ylabel(name, rotation=0, ha="right", va="center")
    figure.savefig(path, dpi=100)


def save_landscapes(path: Path, landscapes: Mapping[str, Landscape]) -> None:
    """Save each algorithm's energy over two hidden activities, with the way that they relax."""
    figure = _new_figure((3.6 * len(landscapes), 3.9))
    for axes, (name, each) in zip(
        figure.subplots(1, len(landscapes), squeeze=False)[0], landscapes.items(), strict=True
    ):
        low = each.energy.min()
        levels = low + np.ptp(each.energy) * np.linspace(0, 1, 24) ** 2
        axes.contourf(each.axis, each.axis, each.energy.T, levels, cmap="Greys_r")
        axes.contour(each.axis, each.axis, each.energy.T, levels, colors="0.4", linewidths=0.4)
        axes.plot(*each.path.T, "-", color="C1")
        axes.plot(*each.path[0], "o", color="C1", mec="black", label="start")
        axes.plot(*each.path[-1], "*", color="C1", mec="black", ms=13, label="end")
        axes.set(title=name, xlabel="first hidden activity", ylabel="second")
        axes.set_aspect("equal")
    figure.axes[0].legend(loc="upper left", fontsize=8)
    figure.suptitle("Energy of XOR's input (1, -1) with its label clamped")
    figure.savefig(path, dpi=110)


def _new_figure(size: tuple[float, float]) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")


def _band(axes: Any, means: np.ndarray, stds: np.ndarray, style: str, label: str | None) -> None:
    """Draw a mean over inference steps, and one standard deviation of the images around it."""
    steps = range(len(means))
    (curve,) = axes.plot(steps, means, style, label=label)
    low = np.maximum(means - stds, means * 1e-2)  # a log axis has no room for what is below 0
    axes.fill_between(steps, low, means + stds, color=curve.get_color(), alpha=0.12, linewidth=0)
