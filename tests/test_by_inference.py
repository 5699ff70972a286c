"""Classification and generation by inference, against NumPy written from the equations."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_hand import ByHand
from small_models import inference_of, sgd, small_model

from bpc_cli.data.pixels import PixelScale, denormalise
from bpc_cli.evaluation.classification import classify_by_energy, classify_by_inference
from bpc_cli.evaluation.cost import flops_per_image
from bpc_cli.evaluation.generation import generate_by_inference

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
    relaxed = hand.relaxed(hand.generated(), *INFERS[algorithm], N_STEPS, RATE, free=(1, 2, 3))
    generated = generate_by_inference(model, inference)
    np.testing.assert_allclose(generated, denormalise(jnp.asarray(relaxed[-1]), SCALE), rtol=1e-9)


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
    # The clamped image's prediction is made once: a step predicts three times (and sends back
    # each error): of the image, of the label and, as that is free, of what the label predicts.
    free_label = sum(products) + 3 * sum(products)
    assert counted["relaxed"] < sum(products) + n_steps * free_label
    assert counted["relaxed"] > sum(products) + n_steps * 2 * sum(products)
    assert counted["lowest_energy"] > 10 * (sum(products) + n_steps * sum(products))


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
