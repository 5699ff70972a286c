"""The figures of a report, saved: trade-off, heat maps, completion, learning curves, samples."""

import dataclasses
import io
import warnings
from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from bpc_cli.errors import one_line
from bpc_cli.files import write_atomically
from bpc_cli.reporting.configurations import Comparison
from bpc_cli.reporting.figures.completion import draw_completion
from bpc_cli.reporting.figures.heat_maps import draw_heat_maps
from bpc_cli.reporting.figures.learning_curves import draw_learning_curves, spread_out
from bpc_cli.reporting.figures.samples import animation, sample_picture
from bpc_cli.reporting.figures.trade_off import draw_trade_off


@dataclasses.dataclass(frozen=True)
class ReportFigures:
    """A report's figures, as they are saved: of PNG and SVG the smaller file, which a page holds.

    Attributes:
        trade_off: metrics against what was swept; None without finished runs.
        heat_maps: metrics over the two options that were swept; None where others were.
        completion: metrics against the fraction of pixels hidden; None where none was evaluated.
        learning_curves: metrics over iterations; None without finished runs.
        n_curves: how many configurations the learning curves show.
        samples: a small sample grid for each configuration, as PNG; None where there is none.
        animations: a GIF for each configuration; None where it kept one grid at most.
        problems: a sentence for each figure that could not be drawn.
    """

    trade_off: Path | None
    heat_maps: Path | None
    completion: Path | None
    learning_curves: Path | None
    n_curves: int
    samples: list[bytes | None]
    animations: list[Path | None]
    problems: list[str]


def save_figures(comparison: Comparison, folder: Path) -> ReportFigures:
    """Save every figure of a report in a folder: curves as SVG, PNG and PDF, animations as GIF.

    Raises:
        OSError: if one cannot be written; one that cannot be drawn is left out.
    """
    curves = spread_out(comparison.configurations)
    animations = []
    for number, configuration in enumerate(comparison.configurations):
        path, content = folder / f"samples_{number:03d}.gif", animation(configuration)
        if content is not None:
            write_atomically(path, content)
        animations.append(None if content is None else path)
    problems: list[str] = []

    def save(name: str, draw: Callable[[], Figure | None]) -> Path | None:
        try:
            contents = _encoded(draw())
        except Exception as error:  # whatever numbers a run may have, the rest of a report is made
            title = name.replace("_", " ")
            problems.append(f"The figure of the {title} could not be drawn ({one_line(error)}).")
            return None
        for suffix, content in contents.items():
            write_atomically((folder / name).with_suffix(suffix), content)
        shown_as = min((".svg", ".png"), key=lambda suffix: len(contents.get(suffix, b"")))
        return (folder / name).with_suffix(shown_as) if contents else None

    return ReportFigures(
        trade_off=save("trade_off", lambda: draw_trade_off(comparison)),
        heat_maps=save("heat_maps", lambda: draw_heat_maps(comparison)),
        completion=save("completion", lambda: draw_completion(comparison, curves)),
        learning_curves=save("learning_curves", lambda: draw_learning_curves(comparison, curves)),
        n_curves=len(curves),
        samples=[sample_picture(configuration) for configuration in comparison.configurations],
        animations=animations,
        problems=problems,
    )


def _encoded(figure: Figure | None) -> dict[str, bytes]:
    """Draw a figure as SVG, PNG and PDF; nothing where there is none."""
    if figure is None:
        return {}
    contents = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that the font lacks, and of narrow panels
        # Without a date, the same runs make the same file.
        dates = {".svg": {"Date": None}, ".png": None, ".pdf": {"CreationDate": None}}
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # once for all formats
        for suffix, metadata in dates.items():
            file = io.BytesIO()
            figure.savefig(file, format=suffix[1:], dpi=130, metadata=metadata)
            contents[suffix] = file.getvalue()
    return contents
