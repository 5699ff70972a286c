"""`bpc-train --dry-run`: what a run would be, and nothing of it."""

import os
import re

import pytest

SMALL = ("data=digits", "model.width=32", "n_train_iters=20", "test_every=10")


def rows_of(printed: str) -> dict[str, str]:
    """What is printed, by the first word of each line."""
    return {name: text for name, text in (line.split(None, 1) for line in printed.splitlines())}


def test_a_dry_run_says_what_would_be_run_and_leaves_nothing(command, tmp_path):
    cache = tmp_path / "cache"
    done = command(
        *("bpc-train", "--dry-run", *SMALL, "model.depth=3", "model.use_bias=true", "n_seeds=2"),
        *("n_epochs=3", "data.n_validation=100", "hydra.run.dir=there"),
        BPC_CACHE_DIR=str(cache),
    )
    assert (done.returncode, done.stderr) == (0, "")
    rows = rows_of(done.stdout)
    assert rows["data"] == (
        "digits: 1,337 training images of 28×28×1 in 10 classes, 100 to test on"
    )
    generator = 10 * 32 + 32 + 32 * 32 + 32 + 32 * 784 + 784
    amortiser = 784 * 32 + 32 + 32 * 32 + 32 + 32 * 10 + 10
    assert rows["generator"] == f"10 → 32 → 32 → 784: {generator:,} parameters"
    assert rows["amortiser"] == f"784 → 32 → 32 → 10: {amortiser:,} parameters"
    assert rows["parameters"] == f"{generator + amortiser:,}, in each of 2 models"
    assert rows["algorithm"].startswith("bpc: bidirectional predictive coding; 2 inference steps")
    assert rows["steps"] == "60 of 64 images, 3.0 epochs; a test every 10"
    assert rows["directory"] == "there"
    n_bytes = 4 * 2 * (generator + amortiser) * 4  # of two models: weights, gradients, two moments
    n_bytes += 4 * 2 * 4 * 64 * (10 + 32 + 32 + 784)  # and four copies of a batch's states
    assert float(rows["memory"].split()[0]) == pytest.approx(n_bytes / 2**20, abs=0.06)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "n_steps", [1, pytest.param(0, marks=pytest.mark.slow), pytest.param(6, marks=pytest.mark.slow)]
)
def test_the_flops_of_a_step_are_those_of_its_matrix_products(n_steps, command):
    done = command(
        *("bpc-train", "--dry-run", "data=digits", "batch_size=128"),
        f"inference.n_steps={n_steps}",
    )
    assert done.returncode == 0, done.stderr
    counted = 1e6 * float(rows_of(done.stdout)["cost"].split()[0].replace(",", ""))
    product = 2 * 128 * 256 * (784 + 10)  # one pass of a batch through one network
    # The amortiser's pass, both networks' errors and both gradients.
    expected = (1 + 1 + 2) * product
    if n_steps < 6:  # the generator's and the amortiser's errors at the hidden layer, sent back
        expected += 2 * n_steps * product
    else:  # the image's Gram matrix, first error and slope; then products with the Gram matrix
        expected += 2 * 256 * 784 * (256 + 2 * 128)
        expected += n_steps * 2 * 128 * 256 * (256 + 2 * 10)
    assert counted == pytest.approx(expected, rel=0.1)


def test_many_layers_alike_are_counted(command):
    done = command("bpc-train", "--dry-run", *SMALL, "model.depth=9", "debug=overfit_batch")
    assert rows_of(done.stdout)["generator"].startswith("10 → 8 × 32 → 784: ")
    assert rows_of(done.stdout)["data"].startswith("digits: 64 training images")


def test_a_dry_run_knows_what_is_done_already(command, tmp_path):
    assert command("bpc-train", *SMALL, "hydra.run.dir=run").returncode == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    finished = command("bpc-train", *SMALL, "hydra.run.dir=run", "--dry-run")
    assert rows_of(finished.stdout)["directory"] == "run, which holds this run, finished"
    longer = command("bpc-train", "--dry-run", *SMALL, "n_train_iters=30", "hydra.run.dir=run")
    assert rows_of(longer.stdout)["directory"] == "run, to be resumed after iteration 20"
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


def test_a_dry_run_of_a_sweep_lists_its_jobs_and_what_is_wrong(command, tmp_path):
    done = command(
        *("bpc-train", "-m", "--dry-run", *SMALL, "seed=0,1", "log_every=1,0"),
        "hydra.sweep.dir=s",
    )
    assert done.returncode == 1
    first, *lines = done.stdout.splitlines()
    assert first == "4 jobs in s: seed=0,1 × log_every=1,0"
    assert [line.split()[:3] for line in lines[2:]] == [
        [str(job), str(seed), str(every)]
        for job, (seed, every) in enumerate([(0, 1), (0, 0), (1, 1), (1, 0)])
    ]
    assert done.stderr.splitlines() == [
        "bpc-train: job 1: log_every must be at least 1, not 0",
        "bpc-train: job 3: log_every must be at least 1, not 0",
        "bpc-train: 2 of 4 jobs cannot be run",
    ]
    assert os.listdir(tmp_path) == []


def test_a_config_of_ones_own_can_make_a_sweep(command, tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: {seed: '0,1'}}}\n"
    )
    done = command(
        *("bpc-train", "--dry-run", *SMALL, f"hydra.searchpath=[file://{tmp_path}]"),
        *("experiment=mine", "hydra.sweep.dir=s"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("2 jobs in s")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("data=mnist",), "mnist is not prepared yet: 'bpc-train data=mnist n_train_iters=1' prep"),
        (("data=digits", "batch_size=5000"), "batch_size must be at most 1437"),
        (("data=digits", "model.width=10000000"), ".* need about .* GiB"),
        (("data=digits", "optim.param=nothing"), "optim: .*nothing"),
    ],
)
def test_what_cannot_be_run_is_one_line(words, message, command, tmp_path):
    done = command("bpc-train", "--dry-run", *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.match(f"bpc-train: {message}", done.stderr)
    assert done.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == []
