"""The figures of a report: the trade-off over α_f, learning curves, sample grids, animations."""

import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from bpc_cli.plots import label_log_axis_plainly
from bpc_cli.reporting.configurations import WEIGHT, Comparison, Setting, describe

_MARKERS = "osD^vP*X"
_STYLES = ("-", "--", "-.", ":")
_MOST_CURVES = 24
_MOST_POINTS = 60
_FORMATS = ("svg", "png")
_MOST_GIF_BYTES = 2 * 10**6
_FRAME_MILLISECONDS = 700
_LAST_FRAME_MILLISECONDS = 2_500


def save_trade_off(comparison: Comparison, folder: Path) -> bool:
    """Save test accuracy and generation error against α_f, with 95 % intervals over seeds.

    A line joins the settings that differ in α_f alone; α_f = 0 stands at the left, off the scale.

    Returns:
        Whether there was anything to draw.
    """
    families = _families(comparison.settings)
    weights = {s.options[WEIGHT] for s in comparison.settings if _is_number(s.options[WEIGHT])}
    if not weights:
        return False
    zero_at = min((weight for weight in weights if weight > 0), default=1.0) / 10
    figure = Figure(figsize=(10, 4.2 + 0.22 * len(families)), layout="constrained")
    panels = figure.subplots(1, 2)
    for number, (label, settings) in enumerate(families.items()):
        look = _look_of(number, len(families))
        for axes, metric in zip(panels, ("test_accuracy", "generation_error"), strict=True):
            shown = [s for s in settings if metric in s.spreads and _is_number(s.options[WEIGHT])]
            places = [s.options[WEIGHT] or zero_at for s in shown]
            means = np.array([s.spreads[metric].mean for s in shown])
            axes.errorbar(
                places, means, yerr=_error_bars(shown, metric), capsize=3, label=label, **look
            )
    panels[0].set(ylabel="test accuracy (%)")
    panels[1].set(ylabel="generation error (RMSE, pixels in [0, 1])")
    for axes in panels:
        axes.set(xlabel="forward_energy_weight (α_f)", xscale="log")
        axes.grid(alpha=0.3)
        if 0 in weights:
            axes.axvline(zero_at, color="grey", linewidth=0.8, linestyle=":")
            axes.text(zero_at, 0.02, " α_f = 0", transform=axes.get_xaxis_transform())
    if len(families) > 1:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", fontsize=8)
    _save(figure, folder / "trade_off")
    return True


def save_learning_curves(comparison: Comparison, folder: Path) -> int:
    """Save test accuracy and both losses over iterations: mean and range over seeds.

    Returns:
        How many settings are drawn; those past the first two dozen would hide each other.
    """
    shown = _spread_out(comparison.settings, _MOST_CURVES)
    if not shown:
        return 0
    figure = Figure(figsize=(10, 4.2 + 0.18 * len(shown)), layout="constrained")
    panels = figure.subplots(1, 3)
    metrics = ("test_accuracy", "gen_loss", "amort_loss")
    for number, setting in enumerate(shown):
        look = _look_of(number, len(shown))
        for axes, metric in zip(panels, metrics, strict=True):
            if metric not in setting.spreads:
                continue
            iterations, mean, low, high = _over_seeds(setting, metric)
            every = max(1, len(iterations) // 8)
            axes.plot(iterations, mean, label=setting.label or "all runs", markevery=every, **look)
            axes.fill_between(iterations, low, high, color=look["color"], alpha=0.15, linewidth=0)
    labels = ("test accuracy (%)", "generator's loss (½ MSE)", "amortiser's loss (½ MSE)")
    for axes, label in zip(panels, labels, strict=True):
        axes.set(xlabel="iteration", ylabel=label)
        axes.grid(alpha=0.3)
    for axes in panels[1:]:
        axes.set_yscale("log")
        label_log_axis_plainly(axes.yaxis)
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside lower left",
        fontsize=8,
        ncols=2 if max(len(setting.label) for setting in shown) < 50 else 1,
    )
    _save(figure, folder / "learning_curves")
    return len(shown)


def sample_picture(setting: Setting, height: int = 480) -> bytes | None:
    """Shrink a setting's newest sample grid to a small PNG; None if it has none."""
    grids = [run.samples[-1] for run in setting.runs if run.samples]
    for grid in grids:
        try:
            with Image.open(grid) as picture:
                picture.thumbnail((10 * height, height), Image.Resampling.LANCZOS)
                encoded = io.BytesIO()
                _with_few_shades(picture).save(encoded, "PNG", optimize=True)
                return encoded.getvalue()
        except (OSError, ValueError, Image.DecompressionBombError):
            continue
    return None


def save_animation(setting: Setting, path: Path) -> bool:
    """Save how a setting's samples came about, a frame per test point, as a GIF of 2 MB at most.

    Frames are left out evenly where there are too many; the last one stays.

    Returns:
        Whether a run of the setting kept more than one grid.
    """
    run = max(setting.runs, key=lambda run: len(run.samples))
    if len(run.samples) < 2:
        return False
    title = setting.label or setting.data_set
    try:
        frames = [_frame(grid, title) for grid in run.samples]
    except (OSError, ValueError, Image.DecompressionBombError):
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
    """Put the setting above a grid, which names its iteration itself."""
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


def _families(settings: Sequence[Setting]) -> dict[str, list[Setting]]:
    """Sort settings by all but α_f; data sets are never joined."""
    families: dict[str, list[Setting]] = {}
    for setting in settings:
        others = describe(setting.others)
        label = f"{setting.data_set}: {others}" if others else setting.data_set
        families.setdefault(label, []).append(setting)
    return families


def _over_seeds(setting: Setting, metric: str) -> np.ndarray:
    """Collect a metric by iteration: rows of iteration, mean, lowest and highest over seeds.

    What is known of every iteration, as losses are, is averaged over stretches of iterations first,
    as a single batch's loss says little.
    """
    counted = {line["seed"] for line in setting.lines}
    figures: dict[int, dict[int, float]] = {}
    for run in setting.runs:
        for line in run.lines:
            if line["seed"] in counted and line.get(metric) is not None:
                figures.setdefault(line["seed"], {})[line["iteration"]] = line[metric]
    common = sorted(set.intersection(*(set(by_iteration) for by_iteration in figures.values())))
    by_seed = np.array([[own[iteration] for iteration in common] for own in figures.values()])
    n_points = min(len(common), _MOST_POINTS)
    stretches = np.array_split(np.arange(len(common)), n_points)
    points = np.array([by_seed[:, stretch].mean(axis=1) for stretch in stretches])
    middles = [np.mean([common[i] for i in stretch]) for stretch in stretches]
    return np.stack([middles, points.mean(axis=1), points.min(axis=1), points.max(axis=1)])


def _error_bars(settings: Sequence[Setting], metric: str) -> np.ndarray | None:
    spreads = [setting.spreads[metric] for setting in settings]
    bars = [
        (0.0, 0.0) if s.low is None or s.high is None else (s.mean - s.low, s.high - s.mean)
        for s in spreads
    ]
    return np.array(bars).T if bars else None


def _look_of(number: int, total: int) -> dict[str, Any]:
    """Choose a look that colour, marker and style each tell apart, as on a grey print."""
    shade = 0.05 + 0.8 * (number / max(total - 1, 1))
    return {
        "color": colormaps["viridis"](shade),
        "marker": _MARKERS[number % len(_MARKERS)],
        "linestyle": _STYLES[number % len(_STYLES)],
        "markersize": 4.5,
        "linewidth": 1.4,
    }


def _spread_out(settings: Sequence[Setting], most: int) -> list[Setting]:
    if len(settings) <= most:
        return list(settings)
    chosen = np.linspace(0, len(settings) - 1, most).round().astype(int)
    return [settings[i] for i in chosen]


def _save(figure: Figure, path: Path) -> None:
    for kind in _FORMATS:
        # Without a date, the same runs make the same file.
        metadata = {"Date": None} if kind == "svg" else None
        figure.savefig(path.with_suffix(f".{kind}"), dpi=130, metadata=metadata)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
