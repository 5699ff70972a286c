"""The samples of a report: what each configuration's networks generate, last and over time."""

import io
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from bpc_cli.files import read_inside
from bpc_cli.reporting.configurations import Configuration
from bpc_cli.reporting.reader import RunRecord

_MOST_GIF_BYTES = 2 * 10**6
_FRAME_MILLISECONDS = 700
_LAST_FRAME_MILLISECONDS = 2_500
# A stranger's run may have any picture: these bound the time and the memory that it takes.
_MOST_FILE_BYTES = 32 * 2**20
_MOST_PIXELS = 4 * 10**7
_MOST_FRAMES = 100
_MOST_PIXELS_OF_FRAMES = 10**8


def sample_picture(configuration: Configuration, height: int = 480) -> bytes | None:
    """Shrink a configuration's newest sample grid to a small PNG; None if it has none."""
    for run in configuration.runs:
        for picture in _pictures(run, run.samples[-1:]):
            picture.thumbnail((10 * height, height), Image.Resampling.LANCZOS)
            encoded = io.BytesIO()
            _with_few_shades(picture).save(encoded, "PNG", optimize=True)
            return encoded.getvalue()
    return None


def animation(configuration: Configuration) -> bytes | None:
    """Show how a configuration's samples came about as a GIF, a frame per test point.

    Frames are left out evenly until it is 2 MB at most; the last one stays.

    Returns:
        None where no run of the configuration kept more than one grid.
    """
    run = max(configuration.runs, key=lambda run: len(run.samples))
    every = -(-len(run.samples) // _MOST_FRAMES) or 1
    chosen = run.samples[:-1][::every] + run.samples[-1:]
    frames, n_pixels = [], 0
    for picture in _pictures(run, chosen):
        n_pixels += picture.width * picture.height
        if n_pixels > _MOST_PIXELS_OF_FRAMES:
            break
        frames.append(_frame(picture, configuration.label))
    return _encoded(frames) if len(frames) > 1 else None


def _pictures(run: RunRecord, grids: Sequence[Path]) -> Iterator[Image.Image]:
    """Read a run's sample grids as they are wanted, but for those that are no pictures."""
    for grid in grids:
        try:
            content = io.BytesIO(read_inside(run.path, grid, _MOST_FILE_BYTES))
            # No other format: Pillow would start a program for some.
            with Image.open(content, formats=("PNG",)) as picture:
                if picture.width * picture.height > _MOST_PIXELS:
                    continue
                picture.load()
        except Exception:  # Pillow raises any, for what a stranger may have made
            continue
        yield picture


def _encoded(frames: Sequence[Image.Image]) -> bytes:
    """Make a GIF of frames, some left out evenly if it would be too large."""
    for every in itertools.count(1):
        chosen = [*frames[:-1][::every], frames[-1]]
        pauses = [_FRAME_MILLISECONDS] * (len(chosen) - 1) + [_LAST_FRAME_MILLISECONDS]
        encoded = io.BytesIO()
        chosen[0].save(
            encoded, "GIF", save_all=True, append_images=chosen[1:], duration=pauses, loop=0
        )
        if len(encoded.getvalue()) <= _MOST_GIF_BYTES or len(chosen) <= 2:
            return encoded.getvalue()
    raise AssertionError("unreachable")


def _frame(picture: Image.Image, title: str) -> Image.Image:
    """Put a title above a grid, which names its iteration itself."""
    font = ImageFont.load_default(14)
    words, lines = title.split(", "), [""]
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
