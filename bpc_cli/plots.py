"""Arrays → figures: sample grids by Pillow, curves and matrices by Matplotlib."""

import importlib
import itertools
import threading
from collections.abc import Mapping, Sequence, Sized
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Integer
from PIL import Image, ImageDraw, ImageFont

from bpc_cli.evaluation.metrics import METRICS, Metric

# Matplotlib is imported inside functions, as it is slow to import and most commands end without.
if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

_CELL = 84  # pixels of a shown image, three times MNIST's
_GAP = 8
_TEXT = 16
_STYLES = ("-", "--", "-.", ":")
_MOST_MARKED = 12  # points of a curve
_MOST_COLUMNS = 10  # classes of a sample grid

MetricsLines = Sequence[Mapping[str, int | float | None]]


def load_in_background() -> None:
    """Start to import Matplotlib in a thread, so that it is there when training has ended."""
    threading.Thread(
        target=importlib.import_module, args=("matplotlib.figure",), daemon=True
    ).start()


def save_sample_grid(
    path: Path,
    generated: Sequence[tuple[str, Float[np.ndarray, "classes image"]]],
    means: Float[np.ndarray, "classes image"],
    image_shape: tuple[int, int, int],
    class_names: Sequence[str],
    title: str,
    formats: Sequence[str] = (),
) -> None:
    """Save a grid with a column per class: rows of generated images above the test set's means.

    More than ten classes take several blocks of ten columns, one below the other.

    Args:
        path: where to; a PNG.
        generated: a heading and the images of every class for each row, in [0, 1] pixels; what
            lies outside is clipped, and what is not a number is black.
        means: the test set's mean image of each class, on the same scale.
        image_shape: height, width and channels of an image.
        class_names: a name for each column.
        title: what stands above the grid.
        formats: formats beside PNG, `svg` or `pdf`, whose text is no picture.
    """
    font = ImageFont.load_default(_TEXT)
    rows = [*generated, ("test mean", means)]
    left = int(max(font.getlength(heading) for heading, _ in rows)) + 2 * _GAP
    column = int(max(_CELL, *(font.getlength(name) for name in class_names))) + _GAP
    block = _TEXT + _GAP + len(rows) * (_CELL + _GAP) + _GAP
    n_columns = min(len(class_names), _MOST_COLUMNS)
    n_blocks = -(-len(class_names) // _MOST_COLUMNS)
    width = max(left + n_columns * column, int(font.getlength(title)) + 2 * _GAP)
    mode = "L" if image_shape[2] == 1 else "RGB"
    top = _TEXT + 2 * _GAP
    canvas = Image.new(mode, (width, top + n_blocks * block), "white")
    ink = ImageDraw.Draw(canvas)
    ink.text((_GAP, _GAP), title, "black", font)
    for number, name in enumerate(class_names):
        x = left + number % _MOST_COLUMNS * column
        y = top + number // _MOST_COLUMNS * block
        ink.text((x + _CELL // 2, y), name, "black", font, anchor="ma")
        for row, (heading, images) in enumerate(rows):
            cell = y + _TEXT + _GAP + row * (_CELL + _GAP)
            canvas.paste(_to_picture(images[number], image_shape), (x, cell))
            if number % _MOST_COLUMNS == 0:
                ink.text((_GAP, cell + _CELL // 2), heading, "black", font, anchor="lm")
    canvas.save(path, compress_level=1)
    vectors = [name for name in formats if name != "png"]
    if vectors:
        figure = _draw_sample_grid(rows, image_shape, class_names, title)
        save_figure(figure, path, vectors, also_png=False)


def _draw_sample_grid(
    rows: Sequence[tuple[str, Float[np.ndarray, "classes image"]]],
    image_shape: tuple[int, int, int],
    class_names: Sequence[str],
    title: str,
) -> "Figure":
    """Draw what `save_sample_grid` saves by Matplotlib, which is slower and writes vectors."""
    from matplotlib.figure import Figure

    n_columns = min(len(class_names), _MOST_COLUMNS)
    n_blocks = -(-len(class_names) // _MOST_COLUMNS)
    size = (0.8 * n_columns + 1.2, 0.9 * n_blocks * len(rows) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(n_blocks * len(rows), n_columns, squeeze=False)
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])
        axes.axis("off")
    for number, name in enumerate(class_names):
        block, column = divmod(number, _MOST_COLUMNS)
        for row, (heading, images) in enumerate(rows):
            axes = panels[block * len(rows) + row][column]
            axes.axis("on")
            axes.imshow(_to_picture(images[number], image_shape), "gray", vmin=0, vmax=255)
            if row == 0:
                axes.set_title(name, fontsize=9)
            if column == 0:
                axes.set_ylabel(heading, rotation=0, ha="right", va="center", fontsize=9)
    figure.suptitle(title, fontsize=10)
    return figure


def save_figure(
    figure: "Figure",
    path: Path,
    formats: Sequence[str] = (),
    *,
    dpi: int = 120,
    also_png: bool = True,
) -> None:
    """Save a figure as a PNG and in other formats beside it; the same figure makes the same files.

    Args:
        figure: the figure.
        path: where to; a PNG, whose suffix the other formats replace.
        formats: other formats, `svg` or `pdf`.
        dpi: dots per inch of a PNG.
        also_png: whether there is to be a PNG.
    """
    from matplotlib import rc_context

    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    # Journals reject PDFs whose letters are of Type 3.
    with rc_context({"svg.hashsalt": "bpc", "pdf.fonttype": 42}):
        for name in sorted({"png", *formats} if also_png else set(formats)):
            figure.savefig(path.with_suffix(f".{name}"), dpi=dpi, metadata=undated.get(name))


def save_curves(
    path: Path,
    lines: MetricsLines,
    title: str,
    label_loss: str | None = "squared",
    formats: Sequence[str] = (),
) -> None:
    """Save a run's curves; `draw_curves` and `save_figure` explain the arguments."""
    save_figure(draw_curves(lines, title, label_loss), path, formats)


def draw_curves(lines: MetricsLines, title: str, label_loss: str | None = "squared") -> "Figure":
    """Draw a run's metrics over iterations: mean and range over seeds, in the table's panels.

    Args:
        lines: metrics lines, a line per iteration and seed.
        title: what stands above the panels.
        label_loss: the run's `model.label_loss`, on which the unit of a loss depends.
    """
    from matplotlib.figure import Figure

    panels = _panels(lines)
    width = 10 / 3 * max(len(panels), 1)
    figure = Figure(figsize=(width, 3.4))
    # Margins by hand: a layout engine draws everything twice, which is what most of a curve costs.
    figure.subplots_adjust(
        left=0.7 / width, right=1 - 0.15 / width, bottom=0.15, top=0.88, wspace=0.36
    )
    for number, (panel, metrics) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), number)
        _draw_panel(axes, panel, metrics, lines, label_loss)
    figure.suptitle(title)
    return figure


def save_confusion_matrix(
    path: Path,
    confusion: Integer[np.ndarray, "classes classes"],
    class_names: Sequence[str],
    title: str,
    formats: Sequence[str] = (),
) -> None:
    """Save a confusion matrix with its counts written in.

    Errors are shaded by their fraction of the row, on a scale of their own: beside the diagonal's
    fractions they would all look white.
    """
    from matplotlib.figure import Figure

    size = max(5.0, 0.55 * len(class_names) + 1.5)
    figure = Figure(figsize=(size + 0.8, size), layout="constrained")
    axes = figure.subplots()
    percentages = 100 * confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    errors = np.where(np.eye(len(confusion), dtype=bool), np.nan, percentages)
    largest = np.nanmax(errors, initial=0) or 1.0
    picture = axes.imshow(errors, cmap="Reds", vmin=0, vmax=largest)
    for (row, column), count in np.ndenumerate(confusion):
        if count:
            colour = "white" if errors[row, column] > 0.6 * largest else "black"
            weight = "bold" if row == column else "normal"
            axes.text(
                *(column, row, str(count)),
                **{
                    "ha": "center",
                    "va": "center",
                    "fontsize": 8,
                    "color": colour,
                    "weight": weight,
                },
            )
    rotated = {"rotation": 45, "ha": "right"} if max(map(len, class_names)) > 3 else {}
    axes.set_xticks(range(len(class_names)), class_names, **rotated)
    axes.set_yticks(range(len(class_names)), class_names)
    axes.set(xlabel="predicted class", ylabel="actual class", title=title)
    figure.colorbar(picture, label="errors (% of the actual class)", shrink=0.7)
    save_figure(figure, path, formats)


def label_log_axis_plainly(axis: "Axis") -> None:
    """Write 0.01 instead of a formula, whose layout is half the time of drawing the curves."""
    from matplotlib.ticker import LogFormatter

    class PlainFormatter(LogFormatter):
        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""

    axis.set_major_formatter(PlainFormatter())
    axis.set_minor_formatter(PlainFormatter(minor_thresholds=(2, 0.5)))


def label_steps(axes: "Axes") -> None:
    """Count inference steps along an axis; there are no halves of them."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("inference step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))


def marker_of(steps: Sized) -> str:
    """Choose what marks each step: a dot, where there are few enough to tell apart."""
    return "o" if len(steps) <= _MOST_MARKED else ""


def write_ticks_in_full(axes: "Axes", least_span: float) -> None:
    """Write the vertical axis's numbers without an offset, and let it span at least so much."""
    low, high = axes.get_ylim()
    missing = max(least_span - (high - low), 0) / 2
    axes.set_ylim(low - missing, high + missing)
    axes.ticklabel_format(axis="y", style="plain", useOffset=False)


def _panels(lines: MetricsLines) -> dict[str, list[Metric]]:
    """Sort the metrics that lines have a number for by the panel that they are drawn in."""
    panels: dict[str, list[Metric]] = {}
    for metric in METRICS.values():
        if metric.panel and any(line.get(metric.name) is not None for line in lines):
            panels.setdefault(metric.panel, []).append(metric)
    return panels


def _draw_panel(
    axes: "Axes", panel: str, metrics: list[Metric], lines: MetricsLines, label_loss: str | None
) -> None:
    units = list(dict.fromkeys(metric.unit_under(label_loss) for metric in metrics))
    for metric, style in zip(metrics, itertools.cycle(_STYLES)):
        # Two units on one axis can be told apart in the legend alone.
        label = metric.title if len(units) == 1 else metric.axis_label(label_loss)
        _draw_seeds(axes, lines, metric, style, label)
    shared = f"{panel} ({' or '.join(filter(None, units))})" if any(units) else panel
    axes.set_xlabel("iteration")
    axes.set_ylabel(metrics[0].axis_label(label_loss) if len(metrics) == 1 else shared)
    axes.grid(alpha=0.3)
    axes.ticklabel_format(style="plain", useOffset=False)
    if any(metric.log_axis for metric in metrics):
        axes.set_yscale("log")
        label_log_axis_plainly(axes.yaxis)
    if len(metrics) > 1:
        axes.legend()


def _draw_seeds(axes: "Axes", lines: MetricsLines, metric: Metric, style: str, label: str) -> None:
    """Draw a metric over iterations: the mean of all seeds, and from the lowest to the highest."""
    by_iteration: dict[float | None, list[float]] = {}
    for line in lines:
        value = line.get(metric.name)
        # A test's metrics are measured at few iterations; a training step's None is a gap.
        if metric.measure is None or value is not None:
            numbers = by_iteration.setdefault(line["iteration"], [])
            numbers.append(np.nan if value is None else value)
    iterations = np.array(list(by_iteration), np.float64)
    means = [fmean(numbers) for numbers in by_iteration.values()]
    marker = "" if metric.measure is None else "o"
    (curve,) = axes.plot(iterations, means, linestyle=style, marker=marker, label=label)
    if any(len(numbers) > 1 for numbers in by_iteration.values()):
        low = [min(numbers) for numbers in by_iteration.values()]
        high = [max(numbers) for numbers in by_iteration.values()]
        axes.fill_between(iterations, low, high, color=curve.get_color(), alpha=0.2, linewidth=0)


def _to_picture(pixels: Float[np.ndarray, " image"], shape: tuple[int, int, int]) -> Image.Image:
    levels = np.clip(np.nan_to_num(pixels, nan=0.0), 0, 1) * 255
    levels = np.round(levels).astype(np.uint8).reshape(shape)
    picture = Image.fromarray(levels[..., 0] if shape[2] == 1 else levels)
    return picture.resize((_CELL, _CELL), Image.Resampling.NEAREST)
