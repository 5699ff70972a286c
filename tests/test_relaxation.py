"""Naming and drawing by relaxation, against NumPy written from the equations."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_hand import ByHand

from bpc_cli.core.models import make_networks
from bpc_cli.core.optimisers import make_optimiser
from bpc_cli.core.rules import make_rules
from bpc_cli.data.pixels import normalise, pixel_scale, to_unit_range
from bpc_cli.evaluation.by_inference import (
    draw_by_relaxation,
    flops_per_image,
    name_by_free_label,
    name_by_lowest_energy,
)

ALPHA_F, ALPHA_B, RATE, N_STEPS, CLASSES = 0.4, 1.3, 0.1, 7, 4
SCALE = pixel_scale(0.2, 0.5)
INFERS = {"bpc": (ALPHA_F, ALPHA_B), "hpc": (ALPHA_F, 0), "genpc": (ALPHA_F, 0)}


def case(depth, algorithm, reduction="sum"):
    networks = make_networks(jax.random.PRNGKey(3), [CLASSES, *[5] * (depth - 1), 9], "tanh")
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (11, 9), np.uint8))
    sgd = make_optimiser("sgd", RATE)
    rules = make_rules(
        ALPHA_F, ALPHA_B, sgd, sgd, N_STEPS, algorithm=algorithm, reduction=reduction
    )
    return networks, images, rules


def begin(hand, algorithm):
    return hand.generated() if algorithm == "genpc" else hand.amortised()


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("algorithm", INFERS)
def test_a_free_label_relaxes_with_the_activities(algorithm, depth, reduction, float64):
    networks, images, rules = case(depth, algorithm, reduction)
    image = np.asarray(normalise(images, SCALE))
    label = np.asarray(networks[1](image))
    if algorithm == "genpc":
        label = np.full_like(label, 1 / CLASSES)
    hand = ByHand(*networks, label, image)
    first = begin(hand, algorithm)
    rate = RATE if reduction == "sum" else RATE / 32
    relaxed = hand.relaxed(first, *INFERS[algorithm], N_STEPS, rate, free=range(depth))
    named, moved = name_by_free_label(networks, images, SCALE, rules, 32)
    np.testing.assert_array_equal(named, relaxed[0].argmax(1))
    change = sum(((a - b) ** 2).sum(1) for a, b in zip(relaxed, first, strict=True)) - (
        (relaxed[0] - label) ** 2
    ).sum(1)
    start = sum((a**2).sum(1) for a in first[1:-1])
    np.testing.assert_allclose(moved, np.sqrt(change / start), rtol=1e-7)


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("algorithm", INFERS)
def test_the_lowest_energy_of_all_labels_names_the_class(algorithm, depth, float64):
    networks, images, rules = case(depth, algorithm)
    image = np.asarray(normalise(images, SCALE))
    energies = []
    for label in np.eye(CLASSES):
        hand = ByHand(*networks, np.tile(label, (len(image), 1)), image)
        relaxed = hand.relaxed(begin(hand, algorithm), *INFERS[algorithm], N_STEPS, RATE)
        energies.append(hand.energies(relaxed, *INFERS[algorithm]))
    named = name_by_lowest_energy(networks, images, SCALE, rules, 32)
    np.testing.assert_array_equal(named, np.argmin(energies, axis=0))


@pytest.mark.parametrize("algorithm", INFERS)
def test_a_free_image_relaxes_with_the_activities(algorithm, float64):
    networks, _, rules = case(3, algorithm)
    label = np.eye(CLASSES)
    hand = ByHand(*networks, label, np.asarray(networks[0](jnp.eye(CLASSES))))
    relaxed = hand.relaxed(hand.generated(), *INFERS[algorithm], N_STEPS, RATE, free=(1, 2, 3))
    drawn = draw_by_relaxation(networks, SCALE, rules, 32)
    np.testing.assert_allclose(drawn, to_unit_range(jnp.asarray(relaxed[-1]), SCALE), rtol=1e-9)


def test_blocks_change_nothing(float64):
    networks, images, rules = case(3, "bpc")
    whole = name_by_free_label(networks, images, SCALE, rules, 32)
    in_blocks = name_by_free_label(networks, images, SCALE, rules, 32, block_size=4)
    for a, b in zip(whole, in_blocks, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_products_are_counted_as_the_compiler_counts_them():
    sizes, batch = [10, 300, 784], 64
    networks = make_networks(jax.random.PRNGKey(0), sizes, "linear")
    image = jnp.ones((batch, 784))
    compiled = jax.jit(lambda image: networks[1](image)).lower(image).compile()
    counted = compiled.cost_analysis()["flops"] / batch
    assert flops_per_image(sizes, 0, 2)["feedforward"] == pytest.approx(counted, rel=0.01)
    weights = sum(a * b for a, b in itertools.pairwise(sizes))
    assert flops_per_image(sizes, 8, 2)["relaxed"] == 2 * weights * (1 + 2 * 8 * 2)


def test_eval_reports_relaxation(bpc_train, command, tmp_path):
    run = tmp_path / "run"
    code, _, err, _ = bpc_train(
        *("data=digits", "model.width=32", "n_train_iters=200", "algorithm=genpc"),
        *("inference.reduction=sum", f"hydra.run.dir={run}"),
    )
    assert (code, err) == (0, "")
    done = command(
        *("bpc-eval", "checkpoint=run", "inference.n_steps=20", "inference.activity_lr=0.1"),
        "hydra.run.dir=eval",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "by relaxation" in done.stdout
    metrics = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    # The amortiser never learnt, so a pass of it names nothing.
    assert metrics["lowest_energy_accuracy"] > 50 > metrics["test_accuracy"]
    assert metrics["relaxed_accuracy"] > 50
    assert metrics["cost_per_image"]["lowest_energy"]["milliseconds"] > 0
