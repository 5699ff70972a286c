"""Two chains that share a hidden state: by hand in NumPy, and by the real commands."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_files import status_of, summary_of
from small_models import infer_each, inference_of, learning_of, sgd, train_step

from bpc_cli.core.bimodal import Bimodal
from bpc_cli.core.clamping import clamp_both, clamp_classes, clamp_images
from bpc_cli.core.energy import EnergyWeights, energy
from bpc_cli.core.learning import Batch, make_state
from bpc_cli.core.models import Model, make_model
from bpc_cli.core.optimisers import make_optimiser

CLASSES, PIXELS = 3, 6
ALPHA_F, ALPHA_B, PRIOR = 0.7, 1.4, 0.3
SMALL = ("data=digits", "model=bimodal", "model.width=12", "model.shared=8", "batch_size=16")
LEARNS = (*SMALL, "model.width=32", "model.shared=24", "optim.param_lr=3e-3")


def bimodal_model(act_fn="tanh", label_widths=(4,), widths=(5,), **more) -> Model:
    architecture = Bimodal(widths, 7, label_widths, act_fn, use_bias=True, **more)
    return make_model(architecture, jax.random.PRNGKey(1), CLASSES, (1, PIXELS, 1))


def chain_energy(down, up, states, phi):
    """Compute by hand the energy of one chain from a top state (the first) to an end (the last).

    The generator's layers predict each state from the one above, the amortiser's each from the one
    below; φ applies to states but the end.
    """
    total = 0.0
    for number, (w, v) in enumerate(zip(down, up, strict=True)):
        above, below = states[number], states[number + 1]
        is_end = number == len(down) - 1
        generated = np.asarray(w.weight) @ phi(above) + np.asarray(w.bias)
        read = below if is_end else phi(below)
        amortised = np.asarray(v.weight) @ read + np.asarray(v.bias)
        total += ALPHA_F * 0.5 * np.sum((below - generated) ** 2)
        total += ALPHA_B * 0.5 * np.sum((above - amortised) ** 2)
    return total


@pytest.mark.parametrize(("label_widths", "widths"), [((4,), (5,)), ((), ()), ((4, 3), (5,))])
def test_the_energy_is_the_sum_of_two_chains(label_widths, widths, float64):
    model = bimodal_model("tanh", label_widths, widths)
    rng = np.random.default_rng(0)
    states = [rng.normal(size=shape) for shape in model.state_shapes]
    top = model.top
    to_image = chain_energy(model.generator[top:], model.amortiser[top:], states[top:], np.tanh)
    to_label = chain_energy(
        model.generator[:top][::-1], model.amortiser[:top][::-1], states[: top + 1][::-1], np.tanh
    )
    value = energy(model, [jnp.asarray(each) for each in states], EnergyWeights(ALPHA_F, ALPHA_B))
    assert float(value) == pytest.approx(to_image + to_label, rel=1e-12)


def test_the_shared_state_relaxes_to_the_closed_form(float64):
    """Of two linear chains of a layer each the top state solves a system of linear equations."""
    model = bimodal_model("linear", (), ())
    (wl, wi), (vl, vi) = model.generator, model.amortiser
    label, image = np.eye(CLASSES)[1], np.random.default_rng(2).normal(size=PIXELS)
    weights, wanted = (2 * ALPHA_B + PRIOR) * np.eye(7), np.zeros(7)
    for w, v, end in ((wl, vl, label), (wi, vi, image)):
        w, b = np.asarray(w.weight), np.asarray(w.bias)
        weights += ALPHA_F * w.T @ w
        wanted += ALPHA_F * w.T @ (end - b)
        wanted += ALPHA_B * (np.asarray(v.weight) @ end + np.asarray(v.bias))
    how = inference_of((ALPHA_F, ALPHA_B), sgd(0.2), 2_000, latent_precision=jnp.asarray(PRIOR))
    clampings = clamp_both(model, jnp.asarray(label)[None], jnp.asarray(image)[None])
    (top,) = infer_each(model, clampings, how).states.activities
    np.testing.assert_allclose(top[0], np.linalg.solve(weights, wanted), atol=1e-10)


@settings(max_examples=4, deadline=None)
@given(
    st.lists(st.integers(1, 5), max_size=2),
    st.lists(st.integers(1, 5), max_size=2),
    st.sampled_from(["tanh", "relu", "linear"]),
)
def test_feedforward_passes_go_through_the_shared_state(label_widths, widths, act_fn):
    """What one end makes of the other is what the energy has no error for, in its direction."""
    model = bimodal_model(act_fn, tuple(label_widths), tuple(widths))
    sizes = [CLASSES, *label_widths, 7, *widths, PIXELS]
    assert model.state_shapes == [(size,) for size in sizes]
    image = jnp.asarray(np.random.default_rng(3).normal(size=PIXELS), jnp.float32)
    states = [*model.feed_up(image), image]
    weights = EnergyWeights(jnp.ones(model.depth), jnp.ones(model.depth))
    towards_label = EnergyWeights(
        weights.forward.at[model.top :].set(0), weights.backward.at[: model.top].set(0)
    )
    assert float(energy(model, states, towards_label)) == pytest.approx(0, abs=1e-9)
    label = jnp.eye(CLASSES)[0]
    towards_image = EnergyWeights(
        weights.forward.at[: model.top].set(0), weights.backward.at[model.top :].set(0)
    )
    generated = [label, *model.feed_down(label)]
    assert float(energy(model, generated, towards_image)) == pytest.approx(0, abs=1e-9)


def test_relaxing_lowers_the_energy_from_either_end():
    model = bimodal_model()
    images = jnp.asarray(np.random.default_rng(4).normal(size=(5, PIXELS)), jnp.float32)
    for algorithm in ("bpc", "hpc", "genpc"):
        how = inference_of((ALPHA_F, ALPHA_B), sgd(0.02), 30, algorithm)
        for clampings in (clamp_images(model, images), clamp_classes(model)):
            energies = np.asarray(infer_each(model, clampings, how).relaxation.energies)
            assert (np.diff(energies, axis=1) <= 1e-6).all()
            assert (energies[:, -1] < energies[:, 0]).any() or algorithm == "hpc"


def test_one_step_teaches_each_direction_by_its_own_errors(float64):
    """The generator's layers on the label's side learn from the label's error, by α_f alone."""
    model = bimodal_model("linear", (), ())
    label, image = jnp.eye(CLASSES)[:1], jnp.ones((1, PIXELS))
    still = inference_of((ALPHA_F, ALPHA_B), sgd(0.1), 0)
    learning = learning_of((ALPHA_F, ALPHA_B), make_optimiser("sgd", 1.0))
    state = make_state(model, learning)
    after, _ = train_step(state, Batch(label, image), still, learning)
    top = np.asarray(model.amortiser[1](image[0]))
    error = np.asarray(label[0]) - np.asarray(model.generator[0](jnp.asarray(top)))
    moved = np.asarray(after.model.generator[0].weight) - np.asarray(model.generator[0].weight)
    np.testing.assert_allclose(moved, ALPHA_F * np.outer(error, top), atol=1e-12)
    error = top - np.asarray(model.amortiser[0](label[0]))
    moved = np.asarray(after.model.amortiser[0].weight) - np.asarray(model.amortiser[0].weight)
    np.testing.assert_allclose(moved, ALPHA_B * np.outer(error, label[0]), atol=1e-12)


@pytest.fixture(scope="session")
def run(made_once, bpc_train) -> Path:
    def make(directory: Path) -> None:
        words = (*LEARNS, "n_train_iters=200", "inference.latent_precision=0.1")
        code, _, err, _ = bpc_train(*words, f"hydra.run.dir={directory}")
        assert (code, err) == (0, ""), err

    return made_once("bimodal", make)


def test_it_classifies_and_generates_in_the_same_weights(run):
    assert status_of(run) == "finished"
    final = summary_of(run)["final"]
    assert final["test_accuracy"] > 60
    assert final["generation_error"] < 0.15


@pytest.mark.slow
def test_it_is_evaluated_and_diagnosed(run, command, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    words = ("inference.n_steps=3", "diagnostics=[inference,hessian]", "diagnosis.n_images=10")
    done = command("bpc-eval", "run", *words, "hydra.run.dir=eval")
    assert (done.returncode, done.stderr) == (0, "")
    metrics = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert metrics["test_accuracy"] == pytest.approx(summary_of(run)["final"]["test_accuracy"])
    assert {"relaxed_accuracy", "relaxed_generation_error"} <= set(json.dumps(metrics).split('"'))
    assert "image clamped: accuracy" in done.stdout


@pytest.mark.slow
def test_a_stopped_one_resumes_bit_for_bit(bpc_train, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert bpc_train(*SMALL, "n_train_iters=4", f"hydra.run.dir={whole}")[0] == 0
    for n_iters in (2, 4):
        assert bpc_train(*SMALL, f"n_train_iters={n_iters}", f"hydra.run.dir={parts}")[0] == 0
    checkpoints = [run / "checkpoints" / "last.ckpt" for run in (whole, parts)]
    weights = [path.read_bytes()[-1000:] for path in checkpoints]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("algorithm=discpc",), "the label is predicted by the generator"),
        (("model.parameterisation=mupc",), "is defined for one chain of dense layers"),
        (("mode=hybrid", "model.latent=4"), "mode at supervised and model.latent at 0"),
        (("model.latent=4",), "mode at supervised and model.latent at 0"),
        (("algorithm=bp", "inference.latent_precision=1"), "is the prior of latent units"),
        (("model.shared=0",), "model.shared must be at least 1"),
        (("inference.forward_layer_weights=[1,1]",), "len(model.label_widths) + 1 = 4 numbers"),
    ],
)
def test_what_it_cannot_do_is_refused_in_a_line(words, message, bpc_train, tmp_path):
    code, _, err, _ = bpc_train(*SMALL, *words, f"hydra.run.dir={tmp_path / 'run'}")
    assert code == 1
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()
