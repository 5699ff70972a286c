"""Convolutional networks by the real commands, as small as they can be."""

import json
import shutil
from pathlib import Path

import pytest
from pictures import SIZE, write_folder
from PIL import Image
from run_files import lines_of, status_of, summary_of

SMALL = ("data=digits", "model=cnn", "model.channels=[3,5]", "batch_size=16", "data.n_train=64")
ALGORITHMS = ("bpc", "hpc", "discpc", "genpc", "bp")


@pytest.fixture(scope="session")
def runs(made_once, bpc_train) -> Path:
    """A run of two seeds for each algorithm, of two iterations."""

    def make(directory: Path) -> None:
        words = ("-m", *SMALL, "n_train_iters=2", "test_every=1", "n_seeds=2", "save_samples=true")
        algorithms = f"algorithm={','.join(ALGORITHMS)}"
        code, _, err, _ = bpc_train(*words, algorithms, f"hydra.sweep.dir={directory}")
        assert (code, err) == (0, ""), err

    return made_once("cnn", make)


@pytest.mark.slow
def test_every_algorithm_trains_one(runs):
    for number, algorithm in enumerate(ALGORITHMS):
        run = runs / str(number)
        assert status_of(run) == "finished"
        assert f"name: {algorithm}\n" in (run / ".hydra" / "config.yaml").read_text()
        assert len(lines_of(run)) == 4
        (grid,) = run.glob("samples/iteration_0000002.png")
        with Image.open(grid) as picture:
            picture.verify()


def test_a_stopped_one_resumes_bit_for_bit(bpc_train, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert bpc_train(*SMALL, "n_train_iters=4", f"hydra.run.dir={whole}")[0] == 0
    for n_iters in (2, 4):
        code = bpc_train(*SMALL, f"n_train_iters={n_iters}", f"hydra.run.dir={parts}")[0]
        assert code == 0
    assert lines_of(parts)[-1] == lines_of(whole)[-1]
    checkpoints = [run / "checkpoints" / "last.ckpt" for run in (whole, parts)]
    weights = [path.read_bytes()[-1000:] for path in checkpoints]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_the_small_setting_for_cifar_trains_by_every_algorithm(command, tmp_path):
    write_folder(tmp_path / "photos")
    experiments = ",".join(f"small_cifar10_{name}" for name in ALGORITHMS)
    data = ("data=image_folder", "data.dir=photos", f"data.image_size={SIZE}", "batch_size=4")
    done = command(
        "bpc-train", "-m", *data, "debug=fast", f"experiment={experiments}", "hydra.sweep.dir=sweep"
    )
    assert done.returncode == 0, done.stderr
    for number in range(len(ALGORITHMS)):
        assert summary_of(tmp_path / "sweep" / str(number))["status"] == "finished"
        assert lines_of(tmp_path / "sweep" / str(number))[-1]["iteration"] == 10


@pytest.mark.slow
def test_it_is_evaluated_diagnosed_and_reported(runs, command, tmp_path):
    sweep = Path(shutil.copytree(runs, tmp_path / "sweep"))
    words = ("diagnostics=[hessian,completion]", "inference.n_steps=2")
    done = command("bpc-eval", "sweep/0", *words, "hydra.run.dir=eval")
    assert (done.returncode, done.stderr) == (0, "")
    metrics = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    final = summary_of(sweep / "0")["final"]
    assert metrics["test_accuracy"] == pytest.approx(final["test_accuracy"])
    assert command("bpc-report", "sweep").returncode == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("model=vgg5",), "model.channels: images of 28×28 cannot be halved 4 times"),
        (("model=cnn", "model.channels=[]"), "model.channels must have a number for each"),
        (("model=cnn", "model.channels=[3,0]"), "model.channels must be at least 1"),
        (("model=cnn", "model.parameterisation=mupc"), "is defined for one chain of dense layers"),
        (("model=cnn", "model.pooling=mx"), "did you mean max?"),
    ],
)
def test_a_network_that_cannot_be_is_one_line(words, message, command, tmp_path):
    done = command("bpc-train", "data=digits", *words)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_says_what_it_would_be(command):
    done = command("bpc-train", "--dry-run", *SMALL)
    assert "10 → 7×7×5 → 14×14×3 → 28×28×1" in done.stdout
