"""Classification and generation by inference, against NumPy written from the equations."""

import contextlib
import fcntl
import itertools
import json
import os
import pty
import re
import struct
import subprocess
import termios

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_hand import ByHand
from conftest import program_path
from small_models import inference_of, sgd, small_model

import bpc_cli
from bpc_cli.data.pixels import PixelScale, denormalise
from bpc_cli.evaluation.classification import classify_by_energy, classify_by_inference
from bpc_cli.evaluation.cost import flops_per_image
from bpc_cli.evaluation.generation import generate_by_inference
from bpc_cli.evaluation.parts import in_parts

ALPHA_F, ALPHA_B, RATE, N_STEPS, CLASSES = 0.4, 1.3, 0.1, 7, 4
SCALE = PixelScale(0.2, 0.5)
INFERS = {"bpc": (ALPHA_F, ALPHA_B), "hpc": (ALPHA_F, 0), "genpc": (ALPHA_F, 0)}


def case(depth, algorithm, rate=RATE):
    model = small_model(3, [CLASSES, *[5] * (depth - 1), 9], "tanh", SCALE)
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (11, 9), np.uint8))
    return model, images, inference_of((ALPHA_F, ALPHA_B), sgd(rate), N_STEPS, algorithm)


def initial(hand, algorithm):
    return hand.generated() if algorithm == "genpc" else hand.amortised()


@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("algorithm", INFERS)
def test_a_free_label_relaxes_with_the_activities(algorithm, depth, float64):
    model, images, inference = case(depth, algorithm)
    image = np.asarray(model.to_states(images))
    label = np.asarray(jax.vmap(model.feed_up)(image)[0])
    if algorithm == "genpc":
        label = np.full_like(label, 1 / CLASSES)
    hand = ByHand(model, label, image)
    first = initial(hand, algorithm)
    relaxed = hand.relaxed(first, *INFERS[algorithm], N_STEPS, RATE, free=range(depth))
    predicted, moved = classify_by_inference(model, images, inference)
    np.testing.assert_array_equal(predicted, relaxed[0].argmax(1))
    change = sum(((a - b) ** 2).sum(1) for a, b in zip(relaxed[1:], first[1:], strict=True))
    start = sum((a**2).sum(1) for a in first[1:-1])
    np.testing.assert_allclose(moved, np.sqrt(change / start), rtol=1e-7)


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("algorithm", INFERS)
def test_the_lowest_energy_of_all_labels_is_the_predicted_class(algorithm, depth, float64):
    model, images, inference = case(depth, algorithm)
    image = np.asarray(model.to_states(images))
    energies = []
    for label in np.eye(CLASSES):
        hand = ByHand(model, np.tile(label, (len(image), 1)), image)
        relaxed = hand.relaxed(initial(hand, algorithm), *INFERS[algorithm], N_STEPS, RATE)
        energies.append(hand.energies(relaxed, *INFERS[algorithm]))
    predicted = classify_by_energy(model, images, inference)
    np.testing.assert_array_equal(predicted, np.argmin(energies, axis=0))


@pytest.mark.parametrize("algorithm", INFERS)
def test_a_free_image_relaxes_with_the_activities(algorithm, float64):
    model, _, inference = case(3, algorithm)
    label = np.eye(CLASSES)
    hand = ByHand(model, label, np.asarray(jax.vmap(model.feed_down)(label)[-1]))
    first = hand.generated()
    relaxed = hand.relaxed(first, *INFERS[algorithm], N_STEPS, RATE, free=(1, 2, 3))
    generated, moved = generate_by_inference(model, inference)
    np.testing.assert_allclose(generated, denormalise(jnp.asarray(relaxed[-1]), SCALE), rtol=1e-9)
    change = sum(((a - b) ** 2).sum(1) for a, b in zip(relaxed[1:3], first[1:3], strict=True))
    start = sum((a**2).sum(1) for a in first[1:3])
    np.testing.assert_allclose(moved, np.sqrt(change / start), rtol=1e-7, atol=1e-12)


def test_blocks_change_nothing(float64):
    model, images, inference = case(3, "bpc")
    whole = classify_by_inference(model, images, inference)
    in_blocks = classify_by_inference(model, images, inference, block_size=4)
    for a, b in zip(whole, in_blocks, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_operations_are_those_of_the_matrix_products_and_little_else():
    sizes, n_steps = [10, 300, 784], 8
    model = small_model(0, sizes, "linear")
    counted = flops_per_image(model, inference_of((1.0, 1.0), sgd(0.1), n_steps))
    products = [2 * a * b for a, b in itertools.pairwise(sizes)]
    assert counted["feedforward"] == pytest.approx(sum(products), rel=0.01)
    # The clamped image is seen three times (by the amortiser's pass, to predict it first, and to
    # send that error back); a step then has one product with the Gram matrix, and it predicts the
    # label and what that predicts, and sends both errors back.
    label, image = products
    once = 2 * image + 2 * 300**2 * 784 / 500  # the Gram matrix is common to the 500 images
    step = 2 * 300**2 + 4 * label
    assert counted["relaxed"] == pytest.approx(sum(products) + once + n_steps * step, rel=0.02)
    # A clamped label predicts once; the last energy predicts the image and the label once more.
    step = 2 * 300**2 + 2 * label
    energies = sum(products) + label + once + n_steps * step + sum(products)
    assert counted["lowest_energy"] == pytest.approx(10 * energies, rel=0.02)


@pytest.mark.parametrize("n_rows", [1, 4, 11])
def test_parts_change_nothing_and_are_of_one_size(n_rows):
    seen = set()

    def doubled(row, other):
        seen.add(len(row))
        return {"twice": 2 * row, "sum": (row + other).sum(axis=1)}

    rows = np.arange(3 * n_rows, dtype=np.float32).reshape(n_rows, 3)
    found = in_parts(doubled, [rows, rows], "doubling", size=4)
    np.testing.assert_array_equal(found["twice"], 2 * rows)
    np.testing.assert_array_equal(found["sum"], 2 * rows.sum(axis=1))
    assert seen == {min(n_rows, 4)}


@pytest.fixture(scope="session")
def trained_bpc(made_once, bpc_train):
    """The directory of a run of a few iterations, at the published setting but for its width."""

    def train(run):
        code, _, err, _ = bpc_train(
            *("data=digits", "model.width=16", "n_train_iters=20", f"hydra.run.dir={run}")
        )
        assert (code, err) == (0, "")

    return made_once("by-inference", train)


def test_energy_based_classification_is_tested_when_asked(trained_bpc, command, tmp_path):
    name = "lowest_energy_accuracy"
    for asked in ("null", "false", "true"):
        done = command(
            *("bpc-eval", str(trained_bpc), f"lowest_energy={asked}", f"hydra.run.dir=eval-{asked}")
        )
        assert (done.returncode, done.stderr) == (0, "")
        metrics = json.loads((tmp_path / f"eval-{asked}" / "metrics.json").read_text())
        assert (name in metrics) is (asked == "true")
        assert ("lowest_energy" in metrics["cost_per_image"]) is (asked == "true")
        first = "testing 360 images of digits: feedforward, by inference (1 step)"
        first += ", by the energy of each of 10 labels" * (asked == "true")
        assert done.stdout.splitlines()[0] == first


def test_each_relaxations_change_is_reported(trained_bpc, command, tmp_path):
    done = command(
        *("bpc-eval", str(trained_bpc), "optim.activity_lr=0.05", "hydra.run.dir=eval"),
    )
    metrics = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    rows = dict(re.split(r"  +", line, maxsplit=1) for line in table_of(done.stdout))
    before, after = metrics["generation_error"], metrics["relaxed_generation_error"]
    assert rows["label clamped: generation error"] == f"{after:.4f} (feedforward {before:.4f})"
    before, after = metrics["test_accuracy"], metrics["relaxed_accuracy"]
    assert rows["image clamped: accuracy"] == f"{after:.2f} % (feedforward {before:.2f} %)"
    change = rows["image clamped: change of activities"]
    assert change.startswith(f"{100 * metrics['activity_change']:.2f} % of")
    assert change.endswith(": inference does next to nothing in classification")
    change = rows["label clamped: change of activities"]
    assert change.startswith(f"{100 * metrics['generation_activity_change']:.2f} % of")
    assert done.stdout.count("next to nothing") == 1


def test_the_first_test_images_alone_can_be_tested(trained_bpc, command, tmp_path):
    done = command("bpc-eval", str(trained_bpc), "data.n_test=7", "hydra.run.dir=eval")
    assert done.stdout.startswith("testing 7 images of digits")
    metrics = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    model, _ = bpc_cli.load(str(trained_bpc))
    digits = bpc_cli.load_dataset("digits")
    right = model.classify(digits.test_images[:7]) == digits.test_labels[:7]
    assert metrics["test_examples"] == 7
    assert metrics["test_accuracy"] == pytest.approx(100 * np.mean(right))


@pytest.mark.parametrize("rate", ["1e4", "1e30"])
def test_inference_that_diverges_is_told(rate, trained_bpc, command, tmp_path):
    words = (f"optim.activity_lr={rate}", "inference.n_steps=9", "hydra.run.dir=eval")
    done = command("bpc-eval", str(trained_bpc), *words)
    assert (done.returncode, done.stderr) == (0, "")
    told = "inference diverges in classification, and a smaller optim.activity_lr may help"
    assert done.stdout.count(told) == 1
    assert (tmp_path / "eval" / "metrics.json").exists()


def table_of(stdout):
    """The rows of an evaluation's table that tell what inference does."""
    return [line.strip() for line in stdout.splitlines() if " clamped: " in line]


@pytest.mark.slow
def test_progress_is_shown_on_a_terminal(trained_bpc, environment, tmp_path):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    with subprocess.Popen(
        [program_path("bpc-eval"), str(trained_bpc), "lowest_energy=true"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # as it has ended
            while received := os.read(ours, 2**16):
                shown += received
    os.close(ours)
    assert process.returncode == 0
    for what in (b"classifying by inference: ", b"classifying by the lowest energy: "):
        assert what in shown
    assert b"/360 [" in shown


def test_eval_reports_what_inference_does(bpc_train, command, tmp_path):
    run = tmp_path / "run"
    code, _, err, _ = bpc_train(
        *("data=digits", "model.width=32", "n_train_iters=200", "algorithm=genpc"),
        *("inference.reduction=sum", f"hydra.run.dir={run}"),
    )
    assert (code, err) == (0, "")
    done = command(
        *("bpc-eval", "checkpoint=run", "inference.n_steps=20", "optim.activity_lr=0.1"),
        "hydra.run.dir=eval",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "by inference" in done.stdout
    metrics = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    # The amortiser never learnt, so its feedforward pass predicts nothing.
    assert metrics["lowest_energy_accuracy"] > 50 > metrics["test_accuracy"]
    assert metrics["relaxed_accuracy"] > 50
    assert metrics["cost_per_image"]["lowest_energy"]["milliseconds"] > 0
