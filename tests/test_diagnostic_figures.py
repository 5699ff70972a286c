"""Figures of diagnostics: what can be read off their axes and legends."""

import io
import itertools

import numpy as np
import pytest

from bpc_cli.diagnostics import inference, probe, steps


@pytest.mark.parametrize("n_steps", [1, 2, 100])
def test_what_hardly_changes_is_drawn_flat_and_without_offsets(n_steps):
    noise = np.linspace(0, 1, n_steps + 1)
    numbers = {
        "relaxed_accuracy": (76.667 + 1e-3 * noise).tolist(),
        "relaxed_generation_error": (0.2243886 + 2e-6 * noise).tolist(),
    }
    figure = steps.draw(numbers)
    figure.canvas.draw()
    for axes, least in zip(figure.axes, (1.0, 0.01), strict=True):
        assert axes.yaxis.get_offset_text().get_text() == ""
        assert np.ptp(axes.get_ylim()) >= least
        assert all(tick == int(tick) for tick in axes.get_xticks())


@pytest.mark.parametrize(("depth", "n_steps"), [(2, 1), (3, 100), (8, 5), (32, 5)])
def test_every_curve_of_inference_is_in_a_legend_beside_the_panels(depth, n_steps):
    rng = np.random.default_rng(0)
    terms = rng.uniform(0.1, 1, (n_steps + 1, depth))
    terms[0, 1:] = 0  # as the errors of amortised activities are where they are initialised
    curve = {"mean": [1.0] * (n_steps + 1), "std": [0.1] * (n_steps + 1)}
    numbers = dict.fromkeys(("from_start", "from_end", "gradient"), curve)
    ours = {"mean": terms.tolist(), "std": terms.tolist()}
    numbers |= {"generator_terms": ours, "amortiser_terms": ours}
    figure = inference.draw(numbers)
    figure.savefig(io.BytesIO())
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert len(names) == 2 * depth and len(set(names)) == 2 * depth
    assert names[0] == "generator's error at z0" and names[depth] == "amortiser's error at label"
    energies = figure.axes[0]
    assert legend.get_window_extent().x1 < energies.get_window_extent().x0
    assert legend.get_window_extent().height < figure.bbox.height
    low, high = energies.get_ylim()
    assert low <= terms[terms > 0].min() and high >= terms.max()
    assert energies.get_ylim()[0] > 0.01  # curves fill the panel, though some start at 0
    if n_steps < 10:
        assert all(line.get_marker() == "o" for line in energies.lines)


@pytest.mark.parametrize("n_layers", [1, 3, 20])
def test_probes_are_bars_that_say_their_heights(n_layers):
    figure = probe.draw({"start": [96.39] * n_layers, "relaxed": [96.94] * n_layers})
    figure.canvas.draw()
    (axes,) = figure.axes
    assert axes.get_ylim()[0] == 0
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        f"z{layer}" for layer in range(n_layers)
    ]
    assert [text.get_text() for text in axes.texts] == ["96.4"] * n_layers + ["96.9"] * n_layers
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
