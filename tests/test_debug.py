"""`debug=`: does everything work to the end, and can one batch be learnt?"""

import re

import numpy as np
import pytest
from run_files import lines_of, summary_of

from bpc_cli.data.datasets import load_digits

SMALL = ("data=digits", "model.width=64", "hydra.run.dir=run")


def test_a_fast_run_is_a_whole_one(command, tmp_path):
    fast = ("debug=fast", "experiment=best_mnist", "model.width=64", "data=digits")
    done = command("bpc-train", *fast, "hydra.run.dir=run")
    assert (done.returncode, done.stderr) == (0, "")
    summary = summary_of(tmp_path / "run")
    assert summary["status"] == "finished"
    assert summary["data"]["train_examples"] == 256  # its batch_size
    assert [line["epoch"] for line in lines_of(tmp_path / "run")] == list(range(10))
    assert summary["final"]["iteration"] == 10
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").exists()


def said(done) -> tuple[str, list[float]]:
    """The verdict, and each loss at first, at last, at least, and what is left in per cent."""
    (line,) = [line for line in done.stdout.splitlines() if "the batch has" in line]
    verdict, numbers = line.split(": generator")
    return verdict, [float(each) for each in re.findall(r"[\d.]+(?:e-?\d+)?", numbers)]


def test_one_batch_is_learnt_to_the_least_that_losses_can_be(command, tmp_path):
    done = command("bpc-train", *SMALL, "debug=overfit_batch", "algorithm=bp", "data.shift=2")
    assert (done.returncode, done.stderr) == (0, "")
    verdict, numbers = said(done)
    assert verdict == "the batch has been learnt"
    lines = lines_of(tmp_path / "run")
    assert len(lines) == 1000
    data = load_digits()
    images, labels = data.train_images[:64] / 255 / 0.3081, data.train_labels[:64]
    means = np.array([images[labels == label].mean(axis=0) for label in labels])
    least = ((images - means) ** 2).mean() / 2
    for which, (name, lowest) in enumerate([("gen_loss", least), ("amort_loss", 0)]):
        first, last, at_least, left = numbers[4 * which : 4 * which + 4]
        assert first == pytest.approx(lines[0][name], rel=1e-3)
        assert last == pytest.approx(lines[-1][name], rel=1e-3)
        assert at_least == pytest.approx(lowest, rel=1e-3)
        assert left == pytest.approx(100 * (last - lowest) / (first - lowest), abs=0.11)
        assert 0 <= left < 1


def test_a_batch_that_is_not_learnt_is_a_warning(command):
    done = command(
        *("bpc-train", *SMALL, "debug=overfit_batch", "n_train_iters=20", "optim.param_lr=1e-6")
    )
    verdict, numbers = said(done)
    assert verdict == "WARNING: the batch has not been learnt"
    assert numbers[3] > 90
