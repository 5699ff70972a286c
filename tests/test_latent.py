"""Latent units in the top layer: closed forms in NumPy, and the real commands."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from run_files import lines_of, status_of, summary_of
from small_models import infer_each, inference_of, learning_of, sgd, train_step

from bpc_cli.core.architectures import Mlp
from bpc_cli.core.clamping import clamp_both, clamp_images
from bpc_cli.core.energy import energy
from bpc_cli.core.learning import Batch, make_state
from bpc_cli.core.models import make_model, reconstruct
from bpc_cli.core.optimisers import make_optimiser
from bpc_cli.evaluation.representation import represent

CLASSES, LATENT, HIDDEN, PIXELS = 3, 2, 4, 6
ALPHA_F, ALPHA_B, PRIOR = 0.7, 1.4, 0.3


def linear_model(n_classes=CLASSES, n_latent=LATENT, depth=2, label_loss="squared"):
    return make_model(
        Mlp(HIDDEN, depth, "linear"),
        jax.random.PRNGKey(3),
        n_classes,
        (1, PIXELS, 1),
        label_loss=label_loss,
        n_latent=n_latent,
    )


def lowest_energy_states(model, label, image):
    """Solve for the free states of least energy, latent units and z, as one least-squares problem.

    Every term of the energy is ½ ‖A u - b‖², u = (latent, z).
    """
    w0, w1 = (np.asarray(layer.weight) for layer in model.generator)
    v0, v1 = (np.asarray(layer.weight) for layer in model.amortiser)
    n, m = len(label), model.n_latent
    take_latent = np.hstack([np.eye(m), np.zeros((m, HIDDEN))])
    take_z = np.hstack([np.zeros((HIDDEN, m)), np.eye(HIDDEN)])
    top = np.vstack([np.zeros((n, m + HIDDEN)), take_latent])
    known = np.concatenate([label, np.zeros(m)])
    terms = [
        (ALPHA_F, take_z - w0 @ top, w0 @ known),
        (ALPHA_F, w1 @ take_z, image),
        (ALPHA_B, top - v0 @ take_z, -known),
        (ALPHA_B, take_z, v1 @ image),
        (PRIOR, take_latent, np.zeros(m)),
    ]
    rows = np.vstack([np.sqrt(alpha) * a for alpha, a, _ in terms])
    wanted = np.concatenate([np.sqrt(alpha) * b for alpha, _, b in terms])
    solved = np.linalg.lstsq(rows, wanted, rcond=None)[0]
    return solved[:m], solved[m:]


def inference(n_steps=3_000, algorithm="bpc", **more):
    more.setdefault("latent_precision", jnp.asarray(PRIOR))
    return inference_of((ALPHA_F, ALPHA_B), sgd(0.1), n_steps, algorithm, **more)


@pytest.mark.parametrize("n_classes", [CLASSES, 0])
def test_free_latent_units_relax_to_the_closed_form(n_classes, float64):
    model = linear_model(n_classes)
    rng = np.random.default_rng(1)
    labels = np.eye(n_classes)[rng.integers(0, n_classes, 4)] if n_classes else np.zeros((4, 0))
    images = rng.normal(size=(4, PIXELS))
    clampings = clamp_both(model, jnp.asarray(labels), jnp.asarray(images))
    states = infer_each(model, clampings, inference()).states
    for label, image, top, z in zip(labels, images, states.label, *states.activities, strict=True):
        latent, hidden = lowest_energy_states(model, label, image)
        np.testing.assert_array_equal(top[:n_classes], label)
        np.testing.assert_allclose(top[n_classes:], latent, atol=1e-9)
        np.testing.assert_allclose(z, hidden, atol=1e-9)


def test_whose_label_is_unknown_has_free_label_and_latent_units(float64):
    model = linear_model()
    images = jnp.asarray(np.random.default_rng(2).normal(size=(2, PIXELS)))
    labels = jnp.eye(CLASSES)[:2]
    mixed = clamp_both(model, labels, images, jnp.asarray([True, False]))
    both = infer_each(model, mixed, inference(20)).states.label
    known = infer_each(model, clamp_both(model, labels, images), inference(20)).states.label
    free = infer_each(model, clamp_images(model, images), inference(20)).states.label
    np.testing.assert_allclose(both, jnp.stack([known[0], free[1]]), atol=1e-12)


def test_a_label_of_cross_entropy_leaves_latent_units_their_squared_error(float64):
    label, latent = jnp.asarray([0.0, 1.0, 0.0]), jnp.asarray([0.4, -0.2])
    image = jnp.asarray(np.random.default_rng(4).normal(size=PIXELS))
    weights = inference().weights._replace(forward=None)
    model = linear_model(depth=1, label_loss="cross_entropy")
    value = energy(model, [jnp.concatenate([label, latent]), image], weights)
    predicted = np.asarray(model.amortiser[0].weight) @ np.asarray(image)
    logits = predicted[:CLASSES]
    log_softmax = logits - np.log(np.exp(logits).sum())
    by_hand = -log_softmax[1] + 0.5 * np.sum((np.asarray(latent) - predicted[CLASSES:]) ** 2)
    assert float(value) == pytest.approx(ALPHA_B * by_hand, rel=1e-12)


def correlated_images(n=64):
    rng = np.random.default_rng(0)
    spread = np.diag([3.0, 2.0, 0.5, 0.3, 0.2, 0.1]) @ np.linalg.qr(rng.normal(size=(6, 6)))[0]
    return rng.normal(size=(n, PIXELS)) @ spread


def pca_error(images, n_components):
    """The least RMSE of any linear reconstruction through so many units (Eckart & Young 1936)."""
    singular = np.linalg.svd(images, compute_uv=False)
    return np.sqrt(np.sum(singular[n_components:] ** 2) / images.size)


def test_unsupervised_learning_of_a_linear_network_finds_the_principal_components(float64):
    images = correlated_images()
    model = linear_model(0, depth=1)
    relaxing = inference(60, latent_precision=None)
    learning = learning_of((ALPHA_F, ALPHA_B), make_optimiser("adam", 0.03))
    state = make_state(model, learning)
    batch = Batch(jnp.zeros((len(images), 0)), jnp.asarray(images))
    for _ in range(400):
        state, metrics = train_step(state, batch, relaxing, learning)
    made = np.asarray(reconstruct(state.model, jnp.asarray(images)))
    error = np.sqrt(np.mean((made - images) ** 2))
    assert error == pytest.approx(pca_error(images, LATENT), rel=1e-3)
    assert 0.5 * error**2 == pytest.approx(float(metrics.gen_loss), rel=1e-2)
    clampings = clamp_images(state.model, jnp.asarray(images))
    tops = infer_each(state.model, clampings, relaxing).states.label
    made = np.asarray(tops) @ np.asarray(state.model.generator[0].weight).T
    relaxed = np.sqrt(np.mean((made - images) ** 2))
    assert relaxed == pytest.approx(pca_error(images, LATENT), rel=1e-3)


def test_images_are_represented_by_what_the_image_alone_infers(float64):
    model = linear_model()
    images = np.random.default_rng(5).integers(0, 256, (3, PIXELS), np.uint8)
    found = represent(model, jnp.asarray(images), inference(30))
    clampings = clamp_images(model, model.to_states(jnp.asarray(images)))
    tops = np.asarray(infer_each(model, clampings, inference(30)).states.label)
    np.testing.assert_allclose(found.relaxed, tops, atol=1e-12)
    w0, w1 = (np.asarray(layer.weight) for layer in model.generator)
    errors = np.mean((tops @ w0.T @ w1.T - images / 255) ** 2, axis=1)
    np.testing.assert_allclose(found.square_errors, errors, rtol=1e-6)
    v0, v1 = (np.asarray(layer.weight) for layer in model.amortiser)
    np.testing.assert_allclose(found.feedforward, images / 255 @ v1.T @ v0.T, atol=1e-7)


def test_a_model_without_a_label_classifies_nothing_and_generates_no_class():
    model = linear_model(0)
    with pytest.raises(ValueError, match="mode=unsupervised"):
        model.classify(np.zeros((1, PIXELS)))
    with pytest.raises(ValueError, match="mode=unsupervised"):
        model.generate([0])


SMALL = (
    "data=digits",
    "data.n_train=128",
    "batch_size=32",
    "model.width=16",
    "model.latent=4",
    "n_train_iters=4",
    "test_every=2",
)


@pytest.fixture(scope="session")
def runs(made_once, bpc_train) -> Path:
    """A run of each mode with latent units, the first two seeds of each."""

    def make(directory: Path) -> None:
        modes = ("-m", *SMALL, "n_seeds=2", "mode=hybrid,unsupervised")
        code, _, err, _ = bpc_train(*modes, f"hydra.sweep.dir={directory}")
        assert (code, err) == (0, ""), err

    return made_once("latent", make)


def test_modes_train_with_the_metrics_that_they_have(runs):
    of_label, of_latent = {"test_accuracy", "generation_error"}, {"reconstruction_error"}
    for run, wanted in ((runs / "0", of_label | of_latent), (runs / "1", of_latent)):
        assert status_of(run) == "finished"
        final = summary_of(run)["final"]
        assert {name for name in of_label | of_latent if name in final} == wanted
        assert all(final[name] is not None for name in wanted)
        assert len(lines_of(run)) == 8
        (grid,) = run.glob("samples/*.png")
        with Image.open(grid) as picture:
            picture.verify()


def test_the_best_state_without_a_label_reconstructs_best(runs, command):
    best = summary_of(runs / "1")["best"]["reconstruction_error"]
    by_iteration: dict[int, list[float]] = {}
    for line in lines_of(runs / "1"):
        if line["reconstruction_error"] is not None:
            by_iteration.setdefault(line["iteration"], []).append(line["reconstruction_error"])
    assert len(by_iteration) == 2
    assert best == pytest.approx(min(np.mean(each) for each in by_iteration.values()))


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_they_are_evaluated_diagnosed_and_reported(runs, command, tmp_path, number):
    sweep = Path(shutil.copytree(runs, tmp_path / "sweep"))
    words = ("diagnostics=[representation,completion,inference]", "diagnosis.hidden=[0.5]")
    more = ("inference.n_steps=2", "diagnosis.n_images=20", "hydra.run.dir=eval")
    done = command("bpc-eval", f"sweep/{number}", *words, *more)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    metrics = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    final = summary_of(sweep / str(number))["final"]
    for name in {"reconstruction_error", "test_accuracy"} & final.keys():
        assert metrics[name] == pytest.approx(final[name], rel=1e-5)
    assert ("test_accuracy" in metrics) == (number == 0)
    assert 0 < metrics["relaxed_reconstruction_error"] < 1
    assert metrics["linear_decoding"] > 20  # of chance, 10 %
    assert (tmp_path / "eval" / "traversals.png").exists()
    assert (tmp_path / "eval" / "confusion.png").exists() == (number == 0)
    assert command("bpc-report", "sweep", "--output", "report").returncode == 0
    assert "reconstruction_error" in (tmp_path / "report" / "results.csv").read_text()


def test_what_needs_a_label_is_refused_without_one(runs, command, tmp_path):
    shutil.copytree(runs, tmp_path / "sweep")
    for word in ("diagnostics=[steps]", "lowest_energy=true"):
        done = command("bpc-eval", "sweep/1", word, "hydra.run.dir=eval")
        assert done.returncode == 1
        assert "mode=unsupervised" in done.stderr
        assert done.stderr.count("\n") == 1
        assert not (tmp_path / "eval" / "metrics.json").exists()


def test_a_stopped_run_without_a_label_resumes_bit_for_bit(bpc_train, tmp_path):
    words = (*SMALL, "mode=unsupervised", "save_samples=true")
    for name, ends in (("whole", (4,)), ("parts", (3, 4))):
        for n_iters in ends:
            line = (*words, f"n_train_iters={n_iters}", f"hydra.run.dir={tmp_path / name}")
            assert bpc_train(*line)[0] == 0
    whole, parts = (lines_of(tmp_path / name)[-1] for name in ("whole", "parts"))
    assert whole == parts
