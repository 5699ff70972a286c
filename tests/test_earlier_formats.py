"""Runs that earlier versions left: they load, evaluate and resume as they did.

`runs/format_1` holds runs of ten iterations on digits, what the version that made them evaluated
them to, and the metrics lines that it went on to write up to iteration 20.
"""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from run_files import lines_of

import bpc_cli
from bpc_cli.data.datasets import load_dataset
from bpc_cli.errors import UserError
from bpc_cli.reporting.configurations import compare
from bpc_cli.reporting.finding import find_runs
from bpc_cli.reporting.reader import read_run
from bpc_cli.runs.checkpoints.checkpoint import read_checkpoint

RUNS = sorted((Path(__file__).parent / "runs" / "format_1").iterdir())
NOT_NUMBERS = {"seed", "iteration", "epoch", "seconds"}


@pytest.fixture(params=RUNS, ids=lambda path: path.name)
def earlier(request, tmp_path) -> tuple[Path, Path]:
    """A copy of an earlier version's run, and the folder of what it measured."""
    return Path(shutil.copytree(request.param / "run", tmp_path / "run")), request.param


def overrides_of(run: Path) -> list[str]:
    """Give a run's whole config on a command line, under the names that its version had."""

    def words(tree, prefix=""):
        for name, value in tree.items():
            if isinstance(value, dict) and not name.endswith("_args"):
                yield from words(value, f"{prefix}{name}.")
            elif prefix + name not in ("algorithm.name", "data.name", "n_train_iters"):
                yield f"{prefix}{name}={json.dumps(value).replace(chr(34), '')}"

    config = yaml.safe_load((run / ".hydra" / "config.yaml").read_text())
    return [f"algorithm={config['algorithm']['name']}", "data=digits", *words(config)]


def assert_close(ours: dict, theirs: dict, rtol: float) -> None:
    for name in theirs.keys() - NOT_NUMBERS:
        if isinstance(theirs[name], float):
            assert ours[name] == pytest.approx(theirs[name], rel=rtol, abs=1e-9), name


def test_it_evaluates_to_what_it_did(earlier, command, tmp_path):
    run, kept = earlier
    done = command(
        *("bpc-eval", f"checkpoint={run}", "inference.n_steps=5", "lowest_energy=true"),
        "hydra.run.dir=eval",
    )
    assert (done.returncode, done.stderr) == (0, "")
    ours = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    theirs = json.loads((kept / "evaluation.json").read_text())
    newer = {"generation_activity_change", "run"}
    assert ours.keys() - theirs.keys() <= newer
    assert ours.keys() >= theirs.keys()
    assert_close(ours, theirs, rtol=1e-5)
    assert ours["confusion"] == theirs["confusion"]


def test_it_resumes_as_it_would_have(earlier, command):
    run, kept = earlier
    done = command("bpc-train", *overrides_of(run), "n_train_iters=20", f"hydra.run.dir={run}")
    assert done.returncode == 0, done.stderr
    assert "after iteration 10" in done.stdout
    expected = [
        json.loads(line) for line in (kept / "metrics_of_20.jsonl").read_text().splitlines()
    ]
    ours = lines_of(run)
    assert len(ours) == len(expected)
    for line, theirs in zip(ours, expected, strict=True):
        assert (line["iteration"], line["seed"]) == (theirs["iteration"], theirs["seed"])
        assert_close(line, theirs, rtol=1e-4)


@pytest.mark.parametrize("lost", ["seed", "gen_loss"])
def test_its_damaged_metrics_are_noticed_without_a_checksum(lost, earlier, command):
    run, _ = earlier
    summary = (run / "summary.json").read_bytes()
    *before, last = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    line = json.loads(last) | {lost: None}
    damaged = "".join(before) + json.dumps(line).ljust(len(last) + 20) + "\n"
    (run / "metrics.jsonl").write_text(damaged)
    done = command("bpc-train", *overrides_of(run), "n_train_iters=20", f"hydra.run.dir={run}")
    assert done.returncode == 1
    assert "metrics.jsonl is damaged in lines that were there" in done.stderr
    assert (run / "summary.json").read_bytes() == summary


def test_it_loads_in_python(earlier):
    run, kept = earlier
    options = yaml.safe_load((run / ".hydra" / "config.yaml").read_text())
    theirs = json.loads((kept / "evaluation.json").read_text())
    data = load_dataset("digits")
    seeds = range(options["seed"], options["seed"] + options["n_seeds"])
    for seed, expected in zip(seeds, theirs.get("seeds", [theirs]), strict=True):
        model, trained = bpc_cli.load(run, seed=seed)
        assert (trained.iteration, trained.seed, trained.data_set) == (10, seed, "digits")
        assert trained.options["model.width"] == options["model"]["width"]
        assert trained.options["inference.init"] == options["inference"]["start"]
        accuracy = 100 * np.mean(model.classify(data.test_images) == data.test_labels)
        assert accuracy == pytest.approx(expected["test_accuracy"])
        images = model.generate(range(10), clip=False).reshape(10, -1)
        means = bpc_cli.class_means(data.test_images, data.test_labels, 10)
        error = np.sqrt(np.mean((images - means) ** 2))
        assert error == pytest.approx(expected["generation_error"], rel=1e-5)
    if len(seeds) > 1:
        with pytest.raises(UserError, match="holds seeds 0 to 1: choose one, as by seed=0"):
            bpc_cli.load(run)
    with pytest.raises(UserError, match="holds no seed 9"):
        bpc_cli.load(run, seed=9)


def test_reports_count_runs_of_both_names_of_an_option_as_one_configuration(tmp_path):
    (original,) = (run / "run" for run in RUNS if run.name == "seeds")
    for number in (0, 1):
        shutil.copytree(original, tmp_path / str(number))
    config = tmp_path / "1" / ".hydra" / "config.yaml"
    renamed = (
        config.read_text().replace("start:", "init:").replace("shift_share:", "shift_fraction:")
    )
    config.write_text(renamed.replace("seed: 0", "seed: 5", 1))
    records = [read_run(path) for path in find_runs([tmp_path])]
    assert {record.options["inference.init"] for record in records} == {"generative"}
    assert {record.options["data.shift_fraction"] for record in records} == {0.5}
    assert len(compare(records).configurations) == 1


def nested(depth: int) -> dict:
    tree: dict = {}
    for _ in range(depth):
        tree = {"a": tree}
    return tree


@pytest.mark.parametrize(
    "lie",
    [
        {"class_names": "0123456789"},
        {"image_shape": [28, 28]},
        {"image_shape": [28, 28, -1]},
        {"config.checkpoint_every": "9" * 5000},
        {"config.model.width": 10**400},
        {"config.data.mean": 10**400},
        {"config": nested(600)},
        {"config.model": 3},
        {"arrays": 7},
    ],
    ids=lambda lie: next(iter(lie)),
)
def test_a_header_that_lies_is_rejected_in_one_line(lie, tmp_path):
    checkpoint = read_checkpoint(RUNS[0] / "run" / "checkpoints" / "last.ckpt")
    header = json.loads(json.dumps(checkpoint.header))
    ((path, value),) = lie.items()
    *groups, name = path.split(".")
    holder = header
    for group in groups:
        holder = holder[group]
    holder[name] = value
    write_with_header(tmp_path / "x.ckpt", header, checkpoint.payload)
    with pytest.raises(UserError) as raised:
        bpc_cli.load(tmp_path / "x.ckpt")
    assert "\n" not in str(raised.value)


def test_versions_that_are_none_are_no_reason_to_reject(tmp_path):
    checkpoint = read_checkpoint(RUNS[0] / "run" / "checkpoints" / "last.ckpt")
    write_with_header(
        tmp_path / "x.ckpt", checkpoint.header | {"versions": "abc"}, checkpoint.payload
    )
    _, run = bpc_cli.load(tmp_path / "x.ckpt")
    assert run.versions == {}


def write_with_header(path: Path, header: dict, payload: bytes) -> None:
    """Write a checkpoint of format 1 whose checksums are right, whatever its header says."""
    encoded = json.dumps(header).encode() + b"\n"
    digest = hashlib.sha256(encoded).hexdigest()
    first_line = f"bpc-checkpoint 1 {digest} {len(encoded)}\n".encode()
    path.write_bytes(first_line + encoded + payload)
