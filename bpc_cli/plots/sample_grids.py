"""Grids of a model's images: by Pillow as pixels, by Matplotlib as vectors."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

from bpc_cli.plots.saving import save_figure

# Matplotlib is imported inside functions, as it is slow to import and most commands end without.
if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CELL = 84  # pixels of a shown image, three times MNIST's
_GAP = 8
_TEXT = 16
_MOST_COLUMNS = 10  # classes of a sample grid


def save_sample_grid(
    path: Path,
    made: Sequence[tuple[str, Float[np.ndarray, "classes image"]]],
    compared: tuple[str, Float[np.ndarray, "classes image"]],
    image_shape: tuple[int, int, int],
    class_names: Sequence[str],
    title: str,
    formats: Sequence[str] = (),
) -> None:
    """Save a grid with a column per class: rows of made images above those to compare them with.

    More than ten classes take several blocks of ten columns, one below the other.

    Args:
        path: where to; a PNG.
        made: a heading and the images of every class for each row, in [0, 1] pixels; what lies
            outside is clipped, and what is not a number is black.
        compared: a heading and images for the last row, such as the test set's class means.
        image_shape: height, width and channels of an image.
        class_names: a name for each column.
        title: what stands above the grid.
        formats: formats beside PNG, `svg` or `pdf`, whose text is no picture.
    """
    font = ImageFont.load_default(_TEXT)
    rows = [*made, compared]
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


def _to_picture(pixels: Float[np.ndarray, " image"], shape: tuple[int, int, int]) -> Image.Image:
    levels = np.clip(np.nan_to_num(pixels, nan=0.0), 0, 1) * 255
    levels = np.round(levels).astype(np.uint8).reshape(shape)
    picture = Image.fromarray(levels[..., 0] if shape[2] == 1 else levels)
    return picture.resize((_CELL, _CELL), Image.Resampling.NEAREST)
