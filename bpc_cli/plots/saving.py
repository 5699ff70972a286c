"""Figures of Matplotlib's, saved: as a PNG, and in other formats beside it."""

import importlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

# Matplotlib is imported inside functions, as it is slow to import and most commands end without.
if TYPE_CHECKING:
    from matplotlib.figure import Figure


def load_in_background() -> None:
    """Start to import Matplotlib in a thread, so that it is there when training has ended."""
    threading.Thread(
        target=importlib.import_module, args=("matplotlib.figure",), daemon=True
    ).start()


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
