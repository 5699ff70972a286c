"""The samples of a report: what each configuration's networks generate, last and over time."""

import io
import itertools
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from bpc_cli.reporting.configurations import Configuration

_MOST_GIF_BYTES = 2 * 10**6
_FRAME_MILLISECONDS = 700
_LAST_FRAME_MILLISECONDS = 2_500
_UNREADABLE = (OSError, ValueError, Image.DecompressionBombError)


def sample_picture(configuration: Configuration, height: int = 480) -> bytes | None:
    """Shrink a configuration's newest sample grid to a small PNG; None if it has none."""
    grids = [run.samples[-1] for run in configuration.runs if run.samples]
    for grid in grids:
        try:
            with Image.open(grid) as picture:
                picture.thumbnail((10 * height, height), Image.Resampling.LANCZOS)
                encoded = io.BytesIO()
                _with_few_shades(picture).save(encoded, "PNG", optimize=True)
                return encoded.getvalue()
        except _UNREADABLE:
            continue
    return None


def save_animation(configuration: Configuration, path: Path) -> bool:
    """Save how a configuration's samples came about as a GIF, a frame per test point.

    Frames are left out evenly until it is 2 MB at most; the last one stays.

    Returns:
        Whether a run of the configuration kept more than one grid.
    """
    run = max(configuration.runs, key=lambda run: len(run.samples))
    if len(run.samples) < 2:
        return False
    try:
        frames = [_frame(grid, configuration.label) for grid in run.samples]
    except _UNREADABLE:
        return False
    for every in itertools.count(1):
        chosen = frames[:-1][::every] + frames[-1:]
        pauses = [_FRAME_MILLISECONDS] * (len(chosen) - 1) + [_LAST_FRAME_MILLISECONDS]
        encoded = io.BytesIO()
        chosen[0].save(
            encoded, "GIF", save_all=True, append_images=chosen[1:], duration=pauses, loop=0
        )
        if len(encoded.getvalue()) <= _MOST_GIF_BYTES or len(chosen) <= 2:
            path.write_bytes(encoded.getvalue())
            return True
    raise AssertionError("unreachable")


def _frame(grid: Path, title: str) -> Image.Image:
    """Put a title above a grid, which names its iteration itself."""
    font = ImageFont.load_default(14)
    words, lines = title.split(", "), [""]
    with Image.open(grid) as picture:
        for word in words:
            longer = f"{lines[-1]}, {word}" if lines[-1] else word
            if font.getlength(longer) > picture.width - 16 and lines[-1]:
                lines.append(word)
            else:
                lines[-1] = longer
        width = max(picture.width, *(int(font.getlength(line)) + 16 for line in lines))
        mode = "L" if picture.mode == "L" else "RGB"
        canvas = Image.new(mode, (width, picture.height + 20 * len(lines) + 4), "white")
        for number, line in enumerate(lines):
            ImageDraw.Draw(canvas).text((8, 6 + 20 * number), line, "black", font)
        canvas.paste(picture, (0, 20 * len(lines) + 4))
    return _with_few_shades(canvas)


def _with_few_shades(picture: Image.Image) -> Image.Image:
    """Make a picture small to store: 32 shades of grey, evenly spaced, or 128 colours."""
    if picture.mode == "L":
        return picture.point([round(round(level / 255 * 31) / 31 * 255) for level in range(256)])
    return picture.convert("RGB").quantize(128)
