"""Reports of runs that are written by hand: what is read, what is compared, and in which units."""

import csv
import dataclasses
import json
import pkgutil
import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image
from run_files import summary_of, write_lines, write_run

import bpc_cli.reporting
from bpc_cli.evaluation.metrics import METRICS
from bpc_cli.report import report
from bpc_cli.reporting.configurations import Comparison, compare
from bpc_cli.reporting.figures.heat_maps import draw_heat_maps
from bpc_cli.reporting.figures.learning_curves import curve_of, draw_learning_curves
from bpc_cli.reporting.figures.trade_off import draw_trade_off
from bpc_cli.reporting.finding import find_runs
from bpc_cli.reporting.reader import read_run

TOP_2 = dataclasses.replace(METRICS["test_accuracy"], name="top_2", title="top-2 accuracy")


def lines_in(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def compared(*runs: Path) -> Comparison:
    return compare([read_run(run) for run in runs])


def reported(runs: Path, output: Path) -> tuple[str, list[dict[str, str]]]:
    """Make a report, and return its page and the rows of its results.csv."""
    report([runs], output)
    with (output / "results.csv").open(newline="") as file:
        return unescape((output / "index.html").read_text()), list(csv.DictReader(file))


def test_a_page_lists_what_training_looked_unhealthy(tmp_path):
    runs = [write_run(tmp_path / "runs" / str(number), 0.1**number) for number in (1, 2)]
    signs = [{"line": "since iteration 41 energy <b>grows</b>"}, {"line": "and weights"}]
    (runs[0] / "summary.json").write_text(json.dumps(summary_of(runs[0]) | {"health": signs}))
    page, _ = reported(tmp_path / "runs", tmp_path / "report")
    raw = (tmp_path / "report" / "index.html").read_text()
    assert "Runs whose training looks unhealthy" in page
    assert "energy &lt;b&gt;grows&lt;/b&gt;<br>and weights" in raw
    assert "The training of 1 runs showed signs of bad health" in page


def test_a_page_says_what_its_runs_have_in_common(tmp_path):
    for number, weight in enumerate((1.0, 0.01)):
        run = write_run(tmp_path / "runs" / str(number), weight)
        words = ["data=digits", "model.name=<b>", f"forward_energy_weight={weight}"]
        (run / ".hydra" / "overrides.yaml").write_text(json.dumps(words))
        summary = summary_of(run) | {"git_commit": f"abc{number}"}
        (run / "summary.json").write_text(json.dumps(summary))
    page, _ = reported(tmp_path / "runs", tmp_path / "report")
    command = re.findall(r"<p>Command: <code>(.*?)</code></p>", page)
    assert command == ["bpc-train -m data=digits 'model.name=<b>' forward_energy_weight=…"]
    assert "Commit: <code>abc0 (1 runs), abc1 (1 runs)</code>" in page
    assert "<td><code>model.width</code></td><td>32</td>" in page
    assert "<td><code>forward_energy_weight</code></td>" not in page


def headings(page: str) -> list[str]:
    return [cell.split("</button>")[0] for cell in page.split("<button>")[1:]]


def test_columns_are_the_compared_metrics_that_runs_have_a_tests_first(tmp_path):
    write_run(tmp_path / "runs" / "0")
    page, rows = reported(tmp_path / "runs", tmp_path / "report")
    assert headings(page) == [
        "data set",
        "forward_energy_weight",
        "seeds",
        "test accuracy (%)",
        "generation error (RMSE, pixels in [0, 1])",
        "generator's loss (½ MSE)",
        "amortiser's loss (½ MSE)",
    ]
    assert [row["test_accuracy"] for row in rows] == ["59.99", "60.99"]
    assert "top_2" not in rows[0]


def test_a_metric_that_is_new_in_the_table_is_reported(tmp_path, monkeypatch):
    monkeypatch.setitem(METRICS, "top_2", TOP_2)
    for number, (weight, top_2) in enumerate([(1.0, 81.25), (0.01, 93.75)]):
        run = write_run(tmp_path / "runs" / str(number), weight)
        write_lines(
            run,
            [line | {"top_2": line["test_accuracy"] and top_2} for line in lines_in(run)],
        )
    page, rows = reported(tmp_path / "runs", tmp_path / "report")
    assert "top-2 accuracy (%)" in headings(page)
    assert "★ 93.75 ± 0.00" in page
    assert "81.25 ± 0.00" in page and "★ 81.25" not in page
    assert [row["top_2"] for row in rows] == ["81.25", "81.25", "93.75", "93.75"]
    comparison = compare([read_run(path) for path in find_runs([tmp_path / "runs"])])
    for figure in (
        draw_trade_off(comparison),
        draw_learning_curves(comparison, comparison.configurations),
    ):
        assert figure is not None
        assert "top-2 accuracy (%)" in [axes.get_ylabel() for axes in figure.axes]


def test_the_best_is_the_lowest_where_lower_is_better(tmp_path):
    comparison = compared(write_run(tmp_path / "0", 1.0), write_run(tmp_path / "1", 0.01))
    best = comparison.best("digits", METRICS["generation_error"])
    assert best is not None and best.options == {"forward_energy_weight": 0.01}
    assert comparison.best("digits", METRICS["gen_loss"]) is None  # neither direction is better
    assert comparison.best("mnist", METRICS["test_accuracy"]) is None


@pytest.mark.parametrize(
    ("label_losses", "unit"),
    [
        (("squared",), "½ MSE"),
        (("cross_entropy",), "nats"),
        (("squared", "cross_entropy"), "½ MSE or nats"),
    ],
)
def test_a_loss_in_nats_is_labelled_so(label_losses, unit, tmp_path):
    for label_loss in label_losses:
        write_run(tmp_path / "runs" / label_loss, label_loss=label_loss)
    page, _ = reported(tmp_path / "runs", tmp_path / "report")
    assert f"amortiser's loss ({unit})" in headings(page)
    comparison = compare([read_run(path) for path in find_runs([tmp_path / "runs"])])
    figure = draw_learning_curves(comparison, comparison.configurations)
    assert figure is not None
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "test accuracy (%)",
        "generation error (RMSE, pixels in [0, 1])",
        "generator's loss (½ MSE)",
        f"amortiser's loss ({unit})",
    ]


def drawn(figure, panel: int) -> tuple[list[float], list[float]]:
    """Return what a panel's first line joins, along and upwards."""
    line = figure.axes[panel].containers[0].lines[0]
    return [np.asarray(data, float).tolist() for data in (line.get_xdata(), line.get_ydata())]


def changed(run: Path, old: str, new: str) -> Path:
    """Change what a run's config says."""
    config = run / ".hydra" / "config.yaml"
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new))
    return run


def test_a_trade_off_shows_metrics_against_what_was_swept_and_each_other(tmp_path):
    comparison = compared(write_run(tmp_path / "0", 1.0), write_run(tmp_path / "1", 0.01))
    figure = draw_trade_off(comparison)
    assert figure is not None
    assert [(axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes] == [
        ("forward_energy_weight (α_f)", "test accuracy (%)"),
        ("forward_energy_weight (α_f)", "generation error (RMSE, pixels in [0, 1])"),
        ("generation error (RMSE, pixels in [0, 1])", "test accuracy (%)"),
    ]
    assert figure.axes[0].get_xscale() == "log"
    np.testing.assert_allclose(drawn(figure, 0), ([0.01, 1.0], [60.49, 59.5]))
    np.testing.assert_allclose(drawn(figure, 1), ([0.01, 1.0], [0.21, 1.2]))
    np.testing.assert_allclose(drawn(figure, 2), ([1.2, 0.21], [59.5, 60.49]))


@pytest.mark.parametrize(
    ("values", "scale", "places"),
    [
        (["64", "16", "32"], "linear", [16, 32, 64]),
        (["1000", "10"], "log", [10, 1000]),
        (["wide", "16"], "linear", [0, 1]),
    ],
)
def test_whatever_was_swept_is_along_x(values, scale, places, tmp_path):
    runs = [changed(write_run(tmp_path / v), "width: 32", f"width: {v}") for v in values]
    figure = draw_trade_off(compared(*runs))
    assert figure is not None
    assert figure.axes[0].get_xlabel() == "model.width"
    assert figure.axes[0].get_xscale() == scale
    assert drawn(figure, 0)[0] == places
    assert figure.legends == []  # one line needs none


def test_two_options_that_were_swept_are_a_heat_map(tmp_path):
    runs = []
    for weight, width in [(1.0, 16), (0.01, 16), (0.01, 64)]:  # one of four is missing
        run = write_run(tmp_path / f"{weight}-{width}", weight)
        runs.append(changed(run, "width: 32", f"width: {width}"))
    figure = draw_heat_maps(compared(*runs))
    assert figure is not None
    accuracy, error = (axes for axes in figure.axes if axes.images)
    assert (accuracy.get_xlabel(), accuracy.get_ylabel()) == (
        "forward_energy_weight (α_f)",
        "model.width",
    )
    assert [tick.get_text() for tick in accuracy.get_xticklabels()] == ["0.01", "1"]
    for axes, expected in ((accuracy, [[60.49, 59.5], [60.49, np.nan]]), (error, None)):
        means = np.ma.filled(axes.images[0].get_array().astype(float), np.nan)
        np.testing.assert_allclose(means, expected or [[0.21, 1.2], [0.21, np.nan]])
    assert draw_heat_maps(compared(*runs[:2])) is None  # α_f alone differs


def test_runs_are_pooled_by_the_data_that_they_used(tmp_path):
    runs = [write_run(tmp_path / str(seed), seeds=(seed,)) for seed in (0, 1, 2)]
    for run, name in zip(runs, ("auto", "digits", "auto"), strict=True):
        changed(run, "seed: ", f"data: {{name: {name}}}\nseed: ")
    (runs[2] / "summary.json").write_text('{"status": "finished", "data": {"name": "mnist"}}')
    digits, mnist = compared(*runs).configurations
    assert (digits.data_set, len(digits.runs)) == ("digits", 2)
    assert (mnist.data_set, len(mnist.runs)) == ("mnist", 1)


def test_a_curve_is_the_mean_and_the_range_of_seeds(tmp_path):
    (configuration,) = compared(write_run(tmp_path / "0", seeds=(0, 2))).configurations
    curve = curve_of(configuration, METRICS["gen_loss"])
    assert curve is not None
    iterations = np.arange(1, 5)
    np.testing.assert_allclose(curve.iterations, iterations)
    np.testing.assert_allclose(curve.mean, 2 / iterations)
    np.testing.assert_allclose(curve.low, 1 / iterations)
    np.testing.assert_allclose(curve.high, 3 / iterations)


def test_curves_of_data_sets_have_names_of_their_own(tmp_path):
    runs = [write_run(tmp_path / name) for name in ("0", "1")]
    summary = runs[1] / "summary.json"
    summary.write_text(summary.read_text().replace("digits", "mnist"))
    comparison = compared(*runs)
    figure = draw_learning_curves(comparison, comparison.configurations)
    assert figure is not None
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "digits: forward_energy_weight=0.01",
        "mnist: forward_energy_weight=0.01",
    ]


def test_what_an_earlier_report_drew_is_not_shown_again(tmp_path):
    write_run(tmp_path / "runs" / "0")
    page, _ = reported(tmp_path / "runs", tmp_path / "report")
    assert "<h2>Trade-off</h2>" in page
    (tmp_path / "runs" / "0" / "summary.json").unlink()
    page, _ = reported(tmp_path / "runs", tmp_path / "report")
    assert "1 runs (1 unfinished); 0 configurations" in page
    assert "<h2>Trade-off</h2>" not in page


@pytest.mark.parametrize(
    "line",
    [
        '{"iteration": 4, "seed": null, "test_accuracy": 50.0}',
        '{"iteration": 4, "seed": 0.5, "test_accuracy": 50.0}',
        '{"iteration": true, "seed": 0, "test_accuracy": 50.0}',
        '{"iteration": 4, "seed": 0, "test_accuracy": NaN}',
        '{"iteration": 4, "seed": 0, "test_accuracy": 1' + 400 * "0" + "}",
        "[]",
    ],
)
def test_a_line_that_no_run_writes_makes_a_run_unreadable(line, tmp_path):
    run = write_run(tmp_path / "0")
    (run / "metrics.jsonl").write_text((run / "metrics.jsonl").read_text() + line + "\n")
    assert read_run(run).status == "unreadable"


@pytest.mark.parametrize("value", [".inf", "'2020-01-01'", "two words"])
def test_an_options_value_that_no_option_has_is_text(value, tmp_path):
    runs = tmp_path / "runs"
    config = write_run(runs / "0") / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("width: 32", f"width: {value}"))
    write_run(runs / "1")
    assert isinstance(read_run(runs / "0").options["model.width"], str)
    page, _ = reported(runs, tmp_path / "report")
    assert "2 configurations" in page


def test_an_option_that_an_earlier_version_lacked_has_the_value_it_stood_for(tmp_path):
    run = write_run(tmp_path / "0")
    config = run / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("  label_loss: squared\n", ""))
    assert read_run(run).options["model.label_loss"] == "squared"
    assert len(compared(run, write_run(tmp_path / "1", seeds=(2,))).configurations) == 1


def test_style_and_script_are_in_the_page(tmp_path):
    write_run(tmp_path / "runs" / "0")
    reported(tmp_path / "runs", tmp_path / "report")
    page = (tmp_path / "report" / "index.html").read_text()
    folder = Path(bpc_cli.reporting.__path__[0])
    assert (folder / "web" / "page.css").read_text() in page
    for script in ("web/tables.js", "vendor/echarts.min.js", "web/charts.js"):
        assert (folder / script).read_text() in page
    assert r'content: " \2195"' in page


def test_a_report_needs_no_jax():
    found = pkgutil.walk_packages(bpc_cli.reporting.__path__, "bpc_cli.reporting.")
    modules = [module.name for module in found]
    assert {f"bpc_cli.reporting.{name}" for name in ("page", "reader", "figures.save")} <= {
        *modules
    }
    program = f"import sys, bpc_cli.report, bpc_cli.plots.curves, {', '.join(modules)}"
    program += "; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def charted(output: Path) -> dict:
    """Read what a page's charts are drawn from."""
    page = (output / "index.html").read_text()
    (found,) = re.findall(r'<script type="application/json" id="chart-data">(.*?)</script>', page)
    return json.loads(found)


def test_charts_are_drawn_from_what_the_runs_measured(tmp_path):
    for number, (weight, width) in enumerate([(1.0, 16), (0.01, 16), (0.0, 64)]):
        run = write_run(tmp_path / "runs" / str(number), weight)
        changed(run, "width: 32", f"width: {width}")
    reported(tmp_path / "runs", tmp_path / "report")
    data = charted(tmp_path / "report")
    weights, widths = data["options"]
    assert (weights["name"], weights["scale"]) == ("forward_energy_weight (α_f)", "log")
    assert (weights["words"], weights["numbers"]) == (["0", "0.01", "1"], [0.0, 0.01, 1.0])
    assert (widths["name"], widths["numbers"]) == ("model.width", [16.0, 64.0])
    first, second, third = data["configurations"]
    assert [each["places"] for each in (first, second, third)] == [[2, 0], [1, 0], [0, 1]]
    assert first["nSeeds"] == 2
    np.testing.assert_allclose(
        first["spreads"]["test_accuracy"], [59.5, 0.5**0.5, 59, 60], rtol=1e-4
    )
    iterations, *accuracies = first["curves"]["test_accuracy"]
    assert iterations == [2, 4]
    np.testing.assert_allclose(accuracies, [[59.5, 59.5], [59, 59], [60, 60]], rtol=1e-4)
    losses = np.array(first["curves"]["gen_loss"])
    np.testing.assert_allclose(losses[1], 1.5 / np.arange(1, 5), rtol=1e-4)


def test_data_sets_are_chosen_as_options_are(tmp_path):
    runs = [write_run(tmp_path / "runs" / name) for name in ("0", "1")]
    (runs[1] / "summary.json").write_text('{"status": "finished", "data": {"name": "mnist"}}')
    reported(tmp_path / "runs", tmp_path / "report")
    data = charted(tmp_path / "report")
    assert data["options"][-1]["words"] == ["digits", "mnist"]
    assert [each["places"][-1] for each in data["configurations"]] == [0, 1]


def test_links_lead_to_runs_whatever_they_are_called(tmp_path):
    names = ["0", "a b", "100%", "x?y#z", "javascript:alert(1)", "é"]
    for number, name in enumerate(names):
        write_run(tmp_path / "runs" / name, 0.1**number)
    reported(tmp_path / "runs", tmp_path / "runs")  # beside the runs
    page = (tmp_path / "runs" / "index.html").read_text()
    links = re.findall(r'<a href="(\./[^"]*/)">', page)
    assert {unquote(link).strip("./") for link in links} == set(names)
    assert all(re.fullmatch(r"[\w./%~-]+", link) for link in links)


def test_alternative_texts_say_what_is_to_be_seen(tmp_path):
    for number, weight in enumerate([1.0, 0.1, 0.01]):
        write_run(tmp_path / "runs" / str(number), weight)
    page, _ = reported(tmp_path / "runs", tmp_path / "report")
    trade_off, curves = re.findall(r'<img alt="(Metrics .*?)" src', page)
    assert (
        "Test accuracy on digits: best 60.49 % at forward_energy_weight=0.01, "
        "worst 59.50 % at forward_energy_weight=1." in trade_off
    )
    assert "It falls throughout from forward_energy_weight 0.01 to 1." in trade_off
    assert "Generation error on digits: best 0.2100" in trade_off
    assert "Generator's loss: at first 1.0000 to 2.0000, in the end 0.2500 to 0.5000." in curves


def test_means_are_of_stated_seeds_and_the_date_is_given(tmp_path):
    runs = [write_run(tmp_path / "runs" / str(n), 0.1**n, tuple(range(n + 1))) for n in (1, 2)]
    for day, run in enumerate(runs, 1):
        summary = summary_of(run) | {"ended": f"2026-11-0{day} 10:00 UTC"}
        (run / "summary.json").write_text(json.dumps(summary))
    page, _ = reported(tmp_path / "runs", tmp_path / "report")
    assert "Seeds of each configuration: 2 to 3." in page
    assert "Date: 2026-11-01 10:00 UTC to 2026-11-02 10:00 UTC" in page


@pytest.mark.slow
def test_a_page_on_a_hundred_runs_has_at_most_5_mb(tmp_path):
    noise = np.random.default_rng(0)
    for number in range(100):
        run = write_run(tmp_path / "runs" / str(number), 0.9**number, (0, 1, 2))
        write_lines(
            run, [line | {"iteration": it} for it in range(1, 301) for line in lines_in(run)[-3:]]
        )
        (run / "samples").mkdir()
        digits = noise.integers(0, 256, (3 * 32, 10 * 32), np.uint8)  # no picture is larger as PNG
        Image.fromarray(digits).save(run / "samples" / "iteration_0000300.png")
    reported(tmp_path / "runs", tmp_path / "report")
    assert len(charted(tmp_path / "report")["configurations"]) == 100
    assert (tmp_path / "report" / "index.html").stat().st_size <= 5 * 10**6
