"""Confusion matrices with their counts written in."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Integer

from bpc_cli.plots.saving import save_figure


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
