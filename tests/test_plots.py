"""Pictures of a run: what their axes and legends say, and what their curves show."""

import dataclasses
from collections.abc import Iterable

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from bpc_cli.evaluation.metrics import METRICS
from bpc_cli.plots.axes import label_log_axis_plainly
from bpc_cli.plots.confusion import save_confusion_matrix
from bpc_cli.plots.curves import draw_curves, save_curves
from bpc_cli.plots.sample_grids import save_sample_grid


def metrics_lines(seeds: Iterable[int] = (0,), n_iterations: int = 4) -> list[dict]:
    """Make a run's lines, with a test at every other iteration."""
    return [
        {
            "iteration": iteration,
            "seed": seed,
            "gen_loss": (seed + 1) / iteration,
            "amort_loss": 2.0 / iteration,
            "energy_before": 30.0,
            "energy_after": 20.0,
            "test_accuracy": 50.0 + seed if iteration % 2 == 0 else None,
        }
        for iteration in range(1, n_iterations + 1)
        for seed in seeds
    ]


def axis_labels(figure: Figure) -> list[str]:
    return [axes.get_ylabel() for axes in figure.axes]


def legends(figure: Figure) -> list[list[str]]:
    return [axes.get_legend_handles_labels()[1] for axes in figure.axes]


def test_a_panel_is_drawn_for_each_one_of_the_table():
    figure = draw_curves(metrics_lines(), "digits")
    assert axis_labels(figure) == ["loss (½ MSE)", "energy (per sample)", "test accuracy (%)"]
    assert legends(figure)[:2] == [
        ["generator's loss", "amortiser's loss"],
        ["energy before inference", "energy after inference"],
    ]
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "log", "linear"]


def test_losses_of_two_units_say_which_is_in_nats():
    figure = draw_curves(metrics_lines(), "digits", "cross_entropy")
    assert axis_labels(figure)[0] == "loss (½ MSE or nats)"
    assert legends(figure)[0] == ["generator's loss (½ MSE)", "amortiser's loss (nats)"]


def test_curves_show_the_mean_of_seeds_and_their_range():
    losses, _, accuracies = draw_curves(metrics_lines(seeds=(0, 2)), "digits").axes
    np.testing.assert_allclose(losses.lines[0].get_xdata(), [1, 2, 3, 4])
    np.testing.assert_allclose(losses.lines[0].get_ydata(), [2, 1, 2 / 3, 0.5])
    np.testing.assert_allclose(accuracies.lines[0].get_xdata(), [2, 4])
    np.testing.assert_allclose(accuracies.lines[0].get_ydata(), [51, 51])
    edges = accuracies.collections[0].get_paths()[0].vertices[:, 1]
    assert (edges.min(), edges.max()) == (50, 52)


def test_a_loss_that_is_missing_leaves_a_gap():
    lines = metrics_lines()
    lines[1]["gen_loss"] = None
    losses = draw_curves(lines, "digits").axes[0]
    assert np.isnan(losses.lines[0].get_ydata()).tolist() == [False, True, False, False]


def test_a_single_iteration_is_seen():
    losses = draw_curves(metrics_lines()[:1], "digits").axes[0]
    assert losses.lines[0].get_marker() == "o"


@pytest.mark.parametrize("low", [1e-12, 0.031, 90.0])
@pytest.mark.parametrize("factor", [1.0001, 1.3, 7, 60, 1e5, 1e13])
def test_a_logarithmic_axis_is_marked_by_a_few_different_numbers(low, factor):
    axes = Figure(figsize=(4, 3.4)).add_subplot()
    axes.plot([low, low * factor])
    axes.set_yscale("log")
    label_log_axis_plainly(axes.yaxis)
    bottom, top = axes.get_ylim()
    shown = [number for number in axes.get_yticks() if bottom <= number <= top]
    labels = [axes.yaxis.get_major_formatter()(number) for number in shown]
    assert 2 <= len(set(labels)) == len(labels) <= 10
    np.testing.assert_allclose([float(label) for label in labels], shown, rtol=1e-5)


def test_a_metric_that_is_new_in_the_table_gets_its_panel(monkeypatch):
    new = dataclasses.replace(
        METRICS["test_accuracy"], name="top_2", title="top-2 accuracy", panel="top 2"
    )
    monkeypatch.setitem(METRICS, "top_2", new)
    lines = [line | {"top_2": line["test_accuracy"]} for line in metrics_lines()]
    assert axis_labels(draw_curves(lines, "digits"))[-1] == "top-2 accuracy (%)"
    assert len(draw_curves(metrics_lines(), "digits").axes) == 3  # earlier runs lack it


@pytest.mark.parametrize("label_loss", ["squared", "cross_entropy"])
def test_curves_are_saved_as_a_picture(label_loss, tmp_path):
    save_curves(tmp_path / "curves.png", metrics_lines(seeds=range(2)), "digits", label_loss)
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width == pytest.approx(1200, abs=1)


def test_a_grid_clips_pixels_and_shows_what_is_not_a_number_as_black(tmp_path):
    generated = np.array([[-1.0, 2.0, np.nan, 1.0]])
    save_sample_grid(
        tmp_path / "grid.png",
        [("generated", generated)],
        ("test mean", generated),
        (2, 2, 1),
        ["0"],
        "digits",
    )
    with Image.open(tmp_path / "grid.png") as picture:
        levels = np.asarray(picture)
    corner = levels[56:140, :]  # below title and headings
    shown = corner[:, [np.flatnonzero((corner[:42] == 0).all(axis=0))[0] + x for x in (5, 60)]]
    assert shown[[5, 60]].tolist() == [[0, 255], [0, 255]]


@pytest.mark.parametrize(
    ("n_classes", "n_rows", "columns", "rows"), [(10, 1, 10, 2), (23, 3, 10, 12)]
)
def test_a_grid_has_a_column_per_class_and_ten_at_most(n_classes, n_rows, columns, rows, tmp_path):
    black = np.zeros((n_classes, 4))
    generated = [(f"seed {seed}", black) for seed in range(n_rows)]
    names = [str(number) for number in range(n_classes)]
    save_sample_grid(
        tmp_path / "grid.png", generated, ("test mean", black), (2, 2, 1), names, "digits"
    )
    with Image.open(tmp_path / "grid.png") as picture:
        dark = np.asarray(picture) == 0
    assert max(count_cells(line) for line in dark) == columns
    assert max(count_cells(line) for line in dark.T) == rows


def count_cells(line: np.ndarray) -> int:
    """Count the black stretches that are as long as an image's side."""
    ends = np.flatnonzero(np.diff(np.pad(line.astype(int), 1)))
    return np.count_nonzero(ends[1::2] - ends[::2] == 84)


def test_errors_of_a_confusion_matrix_can_be_told_apart(tmp_path):
    confusion = np.diag([1000, 1000, 1000])
    confusion[0, 1], confusion[0, 2] = 4, 1
    save_confusion_matrix(tmp_path / "confusion.png", confusion, ["0", "1", "2"], "digits")
    with Image.open(tmp_path / "confusion.png") as picture:
        colours = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    shades, counts = np.unique(colours, axis=0, return_counts=True)
    reddish = (counts > 2_000) & (shades[:, 0].astype(int) - shades[:, 2] > 20)
    assert np.count_nonzero(reddish) >= 2  # one error in a thousand is seen, and four are darker


def test_figures_are_saved_as_vectors_too_and_the_same_each_time(tmp_path):
    black = np.zeros((3, 4))
    for folder in (tmp_path / "first", tmp_path / "second"):
        folder.mkdir()
        rest = (("test mean", black), (2, 2, 1), ["cat", "dog", "emu"], "digits", ["svg", "pdf"])
        save_sample_grid(folder / "grid.png", [("generated", black)], *rest)
        save_curves(folder / "curves.png", metrics_lines(), "digits", formats=["pdf", "svg"])
    saved = {path.name: path.read_bytes() for path in (tmp_path / "first").iterdir()}
    assert saved.keys() == {
        f"{name}.{x}" for name in ("grid", "curves") for x in ("png", "svg", "pdf")
    }
    assert saved == {path.name: path.read_bytes() for path in (tmp_path / "second").iterdir()}
    assert all(saved[f"{name}.pdf"].startswith(b"%PDF") for name in ("grid", "curves"))
    assert b"<!-- emu -->" in saved["grid.svg"]
