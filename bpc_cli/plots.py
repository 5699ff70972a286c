"""Arrays → figures: sample grids by Pillow, curves and matrices by Matplotlib."""

import importlib
import threading
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from PIL import Image, ImageDraw, ImageFont

_CELL = 84  # pixels of a drawn image, three times MNIST's
_GAP = 8
_TEXT = 16


def load_in_background() -> None:
    """Start to import Matplotlib in a thread, so that it is there when training has ended."""
    threading.Thread(
        target=importlib.import_module, args=("matplotlib.figure",), daemon=True
    ).start()


def save_sample_grid(
    path: Path,
    drawn: Sequence[tuple[str, Float[np.ndarray, "classes image"]]],
    means: Float[np.ndarray, "classes image"],
    image_shape: tuple[int, int, int],
    class_names: Sequence[str],
    title: str,
) -> None:
    """Save a grid with one row per class: generated images beside the test set's class mean.

    `drawn` gives a heading and images for each column. All are in [0, 1] pixels; what lies outside
    is clipped, what is not a number is drawn black.
    """
    font = ImageFont.load_default(_TEXT)
    columns = [*drawn, ("test mean", means)]
    names = max(font.getlength(name) for name in class_names)
    left = int(max(names, font.getlength("class"))) + 3 * _GAP
    column = max(_CELL, *(int(font.getlength(heading)) for heading, _ in columns)) + 2 * _GAP
    width = max(left + len(columns) * column, int(font.getlength(title)) + 2 * _GAP)
    top = 2 * (_TEXT + _GAP) + _GAP
    mode = "L" if image_shape[2] == 1 else "RGB"
    canvas = Image.new(mode, (width, top + len(class_names) * (_CELL + _GAP)), "white")
    ink = ImageDraw.Draw(canvas)
    ink.text((_GAP, _GAP), title, "black", font)
    header = _GAP + _TEXT + _GAP
    ink.text((_GAP, header), "class", "black", font)
    for row, name in enumerate(class_names):
        y = top + row * (_CELL + _GAP)
        ink.text((_GAP, y + _CELL // 2), name, "black", font, anchor="lm")
    for number, (heading, images) in enumerate(columns):
        x = left + number * column
        ink.text((x, header), heading, "black", font)
        for row in range(len(class_names)):
            y = top + row * (_CELL + _GAP)
            canvas.paste(_to_picture(images[row], image_shape), (x, y))
    canvas.save(path, compress_level=1)


def save_curves(path: Path, lines: Sequence[dict], title: str) -> None:
    """Save losses, energy and test accuracy over iterations, from a run's metrics lines."""
    from matplotlib.figure import Figure

    # Margins by hand: a layout engine draws everything twice, which is what most of a curve costs.
    figure = Figure(figsize=(10, 3.4))
    figure.subplots_adjust(left=0.07, right=0.985, bottom=0.15, top=0.88, wspace=0.36)
    losses, energies, accuracies = figure.subplots(1, 3)
    for key, style in (("gen_loss", "-"), ("amort_loss", "--")):
        _draw_seeds(losses, lines, key, style, label=key.replace("_", " "))
    for key, style in (("energy_before", "--"), ("energy_after", "-")):
        label = f"{key.removeprefix('energy_')} inference"
        _draw_seeds(energies, lines, key, style, label=label)
    tested = [line for line in lines if line["test_accuracy"] is not None]
    _draw_seeds(accuracies, tested, "test_accuracy", "o-", color="C2")
    losses.set(ylabel="loss (½ mean squared error)", yscale="log")
    energies.set(ylabel="energy per sample", yscale="log")
    for axes in (losses, energies):
        label_log_axis_plainly(axes.yaxis)
    accuracies.set(ylabel="test accuracy (%)")
    for axes in (losses, energies, accuracies):
        axes.set_xlabel("iteration")
        axes.grid(alpha=0.3)
    losses.legend()
    energies.legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


def save_confusion_matrix(
    path: Path,
    confusion: Int[np.ndarray, "classes classes"],
    class_names: Sequence[str],
    title: str,
) -> None:
    """Save a confusion matrix with its counts written in, shaded by the share of each row."""
    from matplotlib.figure import Figure

    size = max(5.0, 0.55 * len(class_names) + 1.5)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Greys", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(confusion):
        if count:
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)
    rotated = {"rotation": 45, "ha": "right"} if max(map(len, class_names)) > 3 else {}
    axes.set_xticks(range(len(class_names)), class_names, **rotated)
    axes.set_yticks(range(len(class_names)), class_names)
    axes.set(xlabel="predicted class", ylabel="actual class", title=title)
    figure.savefig(path, dpi=120)


def label_log_axis_plainly(axis: Any) -> None:
    """Write 0.01 instead of a formula, whose layout is half the time of drawing the curves."""
    from matplotlib.ticker import LogFormatter

    class PlainFormatter(LogFormatter):
        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""

    axis.set_major_formatter(PlainFormatter())
    axis.set_minor_formatter(PlainFormatter(minor_thresholds=(2, 0.5)))


def _draw_seeds(axes: Any, lines: Sequence[dict], key: str, style: str, **how: Any) -> None:
    """Draw a metric over iterations: the mean of all seeds, and from the lowest to the highest."""
    figures: dict[int, list[float]] = {}
    for line in lines:
        figures.setdefault(line["iteration"], []).append(np.nan if line[key] is None else line[key])
    iterations = list(figures)
    (curve,) = axes.plot(iterations, [fmean(each) for each in figures.values()], style, **how)
    if any(len(each) > 1 for each in figures.values()):
        low, high = zip(*((min(each), max(each)) for each in figures.values()), strict=True)
        axes.fill_between(iterations, low, high, color=curve.get_color(), alpha=0.2, linewidth=0)


def _to_picture(pixels: Float[np.ndarray, " image"], shape: tuple[int, int, int]) -> Image.Image:
    levels = np.clip(np.nan_to_num(pixels, nan=0.0), 0, 1) * 255
    levels = np.round(levels).astype(np.uint8).reshape(shape)
    picture = Image.fromarray(levels[..., 0] if shape[2] == 1 else levels)
    return picture.resize((_CELL, _CELL), Image.Resampling.NEAREST)
