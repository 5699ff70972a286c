"""Evaluations of whole sweeps, and what reports make of them, by the real commands."""

import csv
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from run_files import summary_of

from bpc_cli.cli.evaluated_sweep import spread_over_runs
from bpc_cli.options.names import HIDDEN_PARTS
from bpc_cli.reporting.configurations import compare
from bpc_cli.reporting.evaluations import add_evaluations, find_evaluations
from bpc_cli.reporting.figures.completion import draw_completion
from bpc_cli.reporting.reader import RunRecord, read_run
from bpc_cli.reporting.tables import differences

SMALL = ("data=digits", "data.n_train=64", "batch_size=16", "model.width=8", "n_train_iters=2")


@pytest.fixture(scope="session")
def trained(made_once, bpc_train) -> Path:
    """A sweep of two algorithms by two seeds."""

    def make(directory: Path) -> None:
        words = ("-m", *SMALL, "algorithm=bpc,discpc", "seed=0,1")
        code, _, err, _ = bpc_train(*words, f"hydra.sweep.dir={directory}")
        assert (code, err) == (0, ""), err

    return made_once("evaluated-sweep", make)


@pytest.fixture
def sweep(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "sweep"))


@pytest.fixture
def one_run(trained, tmp_path) -> Path:
    """A sweep of a single run."""
    shutil.copytree(trained / "0", tmp_path / "sweep" / "0")
    return tmp_path / "sweep"


def metrics_of(evaluation: Path) -> dict:
    return json.loads((evaluation / "metrics.json").read_text())


def test_every_run_is_evaluated_once_and_reported_beside_what_it_trained_to(sweep, command):
    done = command("bpc-eval", "sweep", "inference.n_steps=3")
    assert (done.returncode, done.stderr) == (0, "")
    evaluations = [sweep / "evaluations" / str(number) for number in range(4)]
    written = [(path / "metrics.json").stat().st_mtime_ns for path in evaluations]
    again = command("bpc-eval", "sweep", "inference.n_steps=3")
    assert again.returncode == 0
    assert again.stdout.count("evaluated already") == 4
    assert written == [(path / "metrics.json").stat().st_mtime_ns for path in evaluations]
    assert command("bpc-report", "sweep").returncode == 0
    with (sweep / "report" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    for row, path in zip(rows, evaluations, strict=True):
        measured = metrics_of(path)
        assert row["run"].endswith(f"/{path.name}")
        for name in ("relaxed_accuracy", "relaxed_generation_error"):
            assert float(row[name]) == pytest.approx(measured[name])
        assert measured["test_accuracy"] == summary_of(sweep / path.name)["final"]["test_accuracy"]
    page = (sweep / "report" / "index.html").read_text()
    assert "accuracy by inference" in page
    assert "Differences from" in page


def test_completion_stands_in_the_table_and_has_a_figure(one_run, command):
    words = ("diagnostics=[completion]", "diagnosis.hidden=[0.2,0.5]", "diagnosis.n_images=20")
    assert command("bpc-eval", "sweep", "inference.n_steps=2", *words).returncode == 0
    assert command("bpc-report", "sweep").returncode == 0
    measured = metrics_of(one_run / "evaluations" / "0")
    with (one_run / "report" / "results.csv").open() as file:
        row = next(csv.DictReader(file))
    for part in HIDDEN_PARTS:
        rows = measured["diagnostics"]["completion"][part]
        for name, key in (("accuracy", "accuracy_by_pass"), ("rmse", "rmse")):
            assert float(row[f"{part}_half_{name}"]) == pytest.approx(rows[1][key])
    runs = add_evaluations([read_run(one_run / "0")], find_evaluations([one_run]))
    (by_part,) = runs[0].completion.values()
    assert [each["hidden"] for each in by_part["square"]] == [0.2, 0.5]
    figure = draw_completion(comparison := compare(runs), comparison.configurations)
    drawn = figure.axes[HIDDEN_PARTS.index("square")].get_lines()[0].get_ydata()
    wanted = [each["accuracy_by_relaxation"] for each in by_part["square"]]
    np.testing.assert_allclose(drawn, wanted)
    assert (one_run / "report" / "completion.png").exists()


def test_other_options_need_another_place(one_run, command, tmp_path):
    assert command("bpc-eval", "sweep", "inference.n_steps=3").returncode == 0
    refused = command("bpc-eval", "sweep", "inference.n_steps=4")
    assert refused.returncode == 1
    assert "already holds an evaluation" in refused.stderr
    elsewhere = "hydra.sweep.dir=sweep/four/evaluations"
    assert command("bpc-eval", "sweep", "inference.n_steps=4", elsewhere).returncode == 0
    assert metrics_of(tmp_path / "sweep" / "four" / "evaluations" / "0")["inference_steps"] == 4


def test_a_run_that_may_still_train_is_left_for_later(sweep, command):
    summary = sweep / "2" / "summary.json"
    finished = summary.read_text()
    summary.write_text(finished.replace('"finished"', '"interrupted"', 1))
    done = command("bpc-eval", "sweep", "inference.n_steps=1")
    assert done.returncode == 1
    assert "sweep/2 has not finished" in done.stderr
    assert not (sweep / "evaluations" / "2" / "metrics.json").exists()
    summary.write_text(finished)
    again = command("bpc-eval", "sweep", "inference.n_steps=1")
    assert again.returncode == 0
    assert again.stdout.count("evaluated already") == 3
    assert "failed" not in again.stdout
    assert (sweep / "evaluations" / "2" / "metrics.json").exists()
    assert command("bpc-report", "sweep").stdout.startswith("4 runs, 0 of them not finished")


@pytest.mark.slow
def test_one_killed_in_the_middle_resumes(sweep, started, command):
    process = started("bpc-eval", "sweep", "inference.n_steps=2")
    first = sweep / "evaluations" / "0" / "metrics.json"
    deadline = time.monotonic() + 120
    while not first.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    kept = first.read_bytes()
    done = command("bpc-eval", "sweep", "inference.n_steps=2")
    assert done.returncode == 0, done.stderr
    assert "evaluated already: sweep/evaluations/0" in done.stdout
    assert first.read_bytes() == kept
    for number in range(4):
        assert metrics_of(sweep / "evaluations" / str(number))["inference_steps"] in (0, 2)


def test_what_is_no_sweep_stays_as_it_is(trained, tmp_path):
    run = f"checkpoint={trained / '0'}"
    for words in (["checkpoint=nowhere"], [run, "which=best"], ["--cfg", "job"], []):
        assert spread_over_runs(words) == words
    (tmp_path / "empty").mkdir()
    words = [f"checkpoint={tmp_path / 'empty'}"]
    assert spread_over_runs(words) == words


def test_a_sweep_with_odd_letters_in_its_name_is_evaluated(sweep, command, tmp_path):
    odd = tmp_path / "odd, it's (one)=1"
    (odd / "a b").mkdir(parents=True)
    (sweep / "0").rename(odd / "a b" / "0")
    done = command("bpc-eval", f"./{odd.name}", "inference.n_steps=0")
    assert (done.returncode, done.stderr) == (0, "")
    assert (odd / "evaluations" / "0" / "metrics.json").exists()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"run": "..", "iteration": "many", "seed": 0}',
        '{"run": 7, "iteration": 1, "seeds": 3}',
        '{"run": "../0", "iteration": 2, "seeds": [3]}',
        '{"run": "\\u0000", "iteration": 2, "seed": 0, "relaxed_accuracy": 1}',
        '{"run": ".", "iteration": 2, "seed": 0, "diagnostics": 3}',
        '{"run": ".", "iteration": 2, "seed": 0, "diagnostics": {"completion": {"hidden": [2]}}}',
        '{"run": ".", "iteration": 2, "seed": 0, "diagnostics": '
        '{"completion": {"hidden": [0.5], "top": [[]]}}}',
    ],
)
def test_what_is_no_evaluation_is_left_out(tmp_path, content):
    (tmp_path / "metrics.json").write_text(content)
    assert find_evaluations([tmp_path]) == []


def test_numbers_that_are_none_are_left_out(tmp_path):
    told = {"run": ".", "iteration": 2, "seed": 0}
    values = {"relaxed_accuracy": 1e308, "linear_decoding": "9", "lowest_energy_accuracy": 50.0}
    (tmp_path / "metrics.json").write_text(json.dumps(told | values | {"confusion": 3.0}))
    (found,) = find_evaluations([tmp_path])
    assert found.by_seed == {0: {"lowest_energy_accuracy": 50.0}}


def run_of(depth: int, accuracies: dict[int, float]) -> RunRecord:
    final = [
        {"iteration": 1, "seed": seed, "test_accuracy": value} for seed, value in accuracies.items()
    ]
    options = {"model.depth": depth, "forward_energy_weight": 1.0}
    path = Path(f"run{depth}")
    return RunRecord(path, "finished", options=options, data_set="digits", lines=final, final=final)


@pytest.mark.parametrize("newest", [0, 1])
def test_the_evaluation_of_the_most_test_images_counts(newest, tmp_path):
    for number, (n_test, value) in enumerate([(100, 90.0), (1_000, 80.0)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        measured = {"run": "..", "iteration": 1, "seed": 0, "relaxed_accuracy": value}
        (folder / "metrics.json").write_text(json.dumps(measured | {"test_examples": n_test}))
        written = 10**9 * (2 if number == newest else 1)
        os.utime(folder / "metrics.json", ns=(written, written))
    found = find_evaluations([tmp_path])
    assert [each.by_seed[0]["relaxed_accuracy"] for each in found] == [90.0, 80.0]  # last wins


def test_differences_are_paired_by_seed():
    runs = [
        run_of(4, {0: 80.0, 1: 90.0, 2: 70.0}),
        run_of(3, {1: 91.0, 2: 72.0, 5: 10.0}),
        run_of(2, {9: 50.0}),
    ]
    (found,) = differences(compare(runs))
    assert "model.depth=4" in found.reference
    ((label, n_seeds, cell),) = found.rows
    assert ("model.depth=3" in label.text, n_seeds.text) == (True, "2")
    assert float(cell.value) == pytest.approx(np.mean([91.0 - 90.0, 72.0 - 70.0]))
    assert cell.interval == "[+1.00, +2.00]"
