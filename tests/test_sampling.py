"""Sampling from the energy: distributions with known moments, and the real commands."""

import json
import pickle
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import infer_each, inference_of, sgd, small_model

from bpc_cli.core.architectures import Mlp
from bpc_cli.core.clamping import clamp_both
from bpc_cli.core.langevin import Langevin, clamp_for_samples, sample
from bpc_cli.core.models import make_model
from bpc_cli.data.datasets import load_dataset
from bpc_cli.data.examples import shortened
from bpc_cli.evaluation.reference_classifier import reference_classifier
from bpc_cli.evaluation.sample_quality import (
    autocorrelation,
    autocorrelation_time,
    classifier_score,
    frechet_distance,
)

ALPHAS = (0.7, 1.4)
SMALL = ("data=digits", "model.width=16", "batch_size=16", "n_train_iters=100", "test_every=100")


def langevin_of(rate: float, noise: float, n_steps: int) -> Langevin:
    return Langevin(jnp.asarray(float(rate)), jnp.asarray(float(noise)), n_steps)


def test_the_covariance_of_samples_is_the_closed_form(float64):
    """Of a quadratic energy with Hessian H, that of ULA is T H⁻¹ (I - η H / 2)⁻¹."""
    model = small_model(2, [3, 4, 5], "linear")
    rate, noise, n = 0.1, 0.5, 4_000
    (w0, w1), (v0, v1) = model.generator, model.amortiser
    w1, v0 = np.asarray(w1.weight), np.asarray(v0.weight)
    hessian = ALPHAS[0] * (np.eye(4) + w1.T @ w1) + ALPHAS[1] * (np.eye(4) + v0.T @ v0)
    expected = noise**2 * np.linalg.inv(hessian @ (np.eye(4) - rate * hessian / 2))
    label, image = np.eye(3)[0], np.linspace(-1, 1, 5)
    top = ALPHAS[0] * (np.asarray(w0.weight) @ label + w1.T @ image)
    mean = np.linalg.solve(
        hessian, top + ALPHAS[1] * (np.asarray(v1.weight) @ image + v0.T @ label)
    )
    clampings = clamp_both(model, jnp.tile(label, (n, 1)), jnp.tile(image, (n, 1)))
    how, steps = inference_of(ALPHAS, sgd(rate), 0), langevin_of(rate, noise, 200)
    ends = jax.jit(jax.vmap(lambda each, key: sample(model, each, how, steps, key)))(
        clampings, jax.random.split(jax.random.PRNGKey(0), n)
    )
    (z,) = ends.states.activities
    np.testing.assert_allclose(np.mean(z, axis=0), mean, atol=0.03)
    np.testing.assert_allclose(np.cov(z, rowvar=False), expected, atol=0.01)
    assert np.abs(expected).max() > 0.1


def test_without_noise_it_is_inference(float64):
    model = small_model(2, [3, 4, 5], "tanh")
    clampings = clamp_for_samples(model, jnp.arange(6), label_known=True)
    np.testing.assert_array_equal(clampings.label, np.tile(np.eye(3), (2, 1)))
    how = inference_of(ALPHAS, sgd(0.1), 30)
    relaxed = infer_each(model, clampings, how)
    ends = jax.vmap(
        lambda each: sample(model, each, how, langevin_of(0.1, 0, 30), jax.random.PRNGKey(0))
    )(clampings)
    np.testing.assert_allclose(ends.energies, relaxed.relaxation.energies[:, :-1], rtol=1e-12)
    for ours, theirs in zip(ends.states.layers, relaxed.states.layers, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)


@pytest.mark.parametrize(("n_classes", "n_latent"), [(3, 0), (3, 2), (0, 2)])
@pytest.mark.parametrize("label_known", [True, False])
def test_clamped_labels_stay_and_all_else_moves(n_classes, n_latent, label_known):
    model = make_model(
        Mlp(4, 2, "tanh"), jax.random.PRNGKey(0), n_classes, (1, 5, 1), n_latent=n_latent
    )
    clampings = clamp_for_samples(model, jnp.arange(4), label_known=label_known)
    how = inference_of(ALPHAS, sgd(0.1), 0)
    ends = jax.vmap(
        lambda each, key: sample(model, each, how, langevin_of(0.05, 1, 9), key).states
    )(clampings, jax.random.split(jax.random.PRNGKey(1), 4))
    labels = np.eye(3)[np.arange(4) % 3][:, :n_classes]
    stays = np.allclose(ends.label[:, :n_classes], labels)
    assert stays == (label_known or n_classes == 0)
    for free in (ends.label[:, n_classes:], *ends.activities, ends.image):
        assert np.isfinite(free).all()
        assert (np.std(free, axis=0) > 0).all()


def with_moments(mean, covariance, seed):
    """Make rows whose mean and covariance are exactly these."""
    rows = np.random.default_rng(seed).normal(size=(50, len(mean)))
    rows -= rows.mean(axis=0)
    rows = rows @ np.linalg.inv(np.linalg.cholesky(np.atleast_2d(np.cov(rows, rowvar=False)))).T
    return rows @ np.linalg.cholesky(covariance).T + mean


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1_000), st.integers(1, 5))
def test_the_frechet_distance_of_known_moments(seed, n):
    """Against the formula with SciPy's square root of a matrix, which does not know symmetry."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(2, n))
    these, those = (a @ a.T + 0.1 * np.eye(n) for a in rng.normal(size=(2, n, n)))
    root = np.real(scipy.linalg.sqrtm(these @ those))
    expected = np.sum((means[0] - means[1]) ** 2) + np.trace(these + those - 2 * root)
    made = with_moments(means[0], these, seed), with_moments(means[1], those, seed + 1)
    assert frechet_distance(*made) == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert frechet_distance(made[0], made[0]) == pytest.approx(0, abs=1e-6)


def test_the_score_is_one_of_chance_and_the_number_of_classes_at_most():
    assert classifier_score(np.full((8, 4), 0.25)) == pytest.approx(1)
    assert classifier_score(np.tile(np.eye(4), (3, 1))) == pytest.approx(4)
    assert classifier_score(np.tile(np.eye(4)[0], (3, 1))) == pytest.approx(1)  # one class alone
    p = np.array([[0.9, 0.1], [0.2, 0.8]])
    mean = p.mean(axis=0)
    by_hand = np.exp(np.mean([scipy.stats.entropy(row, mean) for row in p]))
    assert classifier_score(p) == pytest.approx(by_hand)


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_the_autocorrelation_time_of_an_autoregression(phi):
    """x ← φ x + ξ has ρ(t) = φ^t, and so (1 + φ) / (1 - φ)."""
    rng = np.random.default_rng(0)
    chains = np.zeros((200, 2_000))
    chains[:, 0] = rng.normal(size=200) / np.sqrt(1 - phi**2)
    for step in range(1, 2_000):
        chains[:, step] = phi * chains[:, step - 1] + rng.normal(size=200)
    groups = np.arange(200) % 2
    chains += 3 * groups[:, None]  # of two distributions
    expected = phi ** np.arange(10)
    np.testing.assert_allclose(autocorrelation(chains, groups)[:10], expected, atol=0.02)
    time = autocorrelation_time(chains, groups)
    assert time == pytest.approx((1 + phi) / (1 - phi), rel=0.05)
    assert autocorrelation_time(-np.cumsum(chains[:, :4], axis=1), groups) >= 1


def test_the_classifier_is_kept_and_made_again_where_it_cannot_be_read(monkeypatch, tmp_path):
    monkeypatch.setenv("BPC_CACHE_DIR", str(tmp_path))
    digits = shortened(load_dataset("digits"), 300, 0)
    made = reference_classifier(digits)
    assert made.test_accuracy > 60
    (kept,) = (tmp_path / "classifiers").iterdir()
    written = kept.read_bytes()
    assert reference_classifier(digits).checksum == made.checksum
    other = reference_classifier(shortened(digits, 200, 0))
    assert other.checksum != made.checksum
    assert len(list((tmp_path / "classifiers").iterdir())) == 2

    class Hostile:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    for content in (written[:100], b"", pickle.dumps(Hostile())):
        kept.write_bytes(content)
        assert reference_classifier(digits).checksum == made.checksum
        assert kept.read_bytes() == written
    assert not (tmp_path / "executed").exists()
    judged = made.judge(digits.test_images)
    np.testing.assert_allclose(judged.probabilities.sum(axis=1), 1, rtol=1e-5)
    predicted = judged.probabilities.argmax(axis=1)
    assert 100 * np.mean(predicted == digits.test_labels) == pytest.approx(made.test_accuracy)


@pytest.fixture(scope="session")
def runs(made_once, bpc_train) -> Path:
    def make(directory: Path) -> None:
        words = ("-m", *SMALL, "algorithm=bpc,bp,discpc,genpc", f"hydra.sweep.dir={directory}")
        code, _, err, _ = bpc_train(*words)
        assert (code, err) == (0, ""), err

    return made_once("sampled", make)


@pytest.mark.parametrize("label", ["clamped", pytest.param("free", marks=pytest.mark.slow)])
def test_samples_are_made_judged_and_reported(label, runs, command, tmp_path):
    shutil.copytree(runs, tmp_path / "sweep")
    words = ("sampling.n_steps=60", "sampling.burn_in=20", "sampling.rate=1")
    more = (f"sampling.label={label}", "inference.n_steps=0", "hydra.run.dir=eval")
    done = command("bpc-eval", "sweep/0", "samples=24", *words, *more)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    metrics = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert 1 <= metrics["sample_score"] <= 10
    assert metrics["sample_frechet_distance"] > 0
    assert ("sample_accuracy" in metrics) == (label == "clamped")
    assert "24 images, label " + label in done.stdout
    for name in ("sampled.png", "sampling.png"):
        assert (tmp_path / "eval" / name).exists()


@pytest.mark.parametrize(
    ("run", "words", "message"),
    [
        ("1", ("samples=10",), "algorithm=bp has no energy of images to sample from"),
        ("2", ("samples=10",), "algorithm=discpc has no energy of images"),
        ("3", ("samples=10", "sampling.label=free"), "nothing but a prior keeps labels"),
        ("0", ("samples=10", "data.n_test=1"), "two test images or more"),
        ("0", ("samples=1",), "takes two samples or more"),
        ("0", ("diagnostics=[sampling]",), "say how many, as by samples=1000"),
        ("0", ("samples=10", "sampling.n_steps=5", "sampling.burn_in=5"), "must be below"),
        ("0", ("samples=10", "sampling.label=fre"), "did you mean free?"),
        (
            "0",
            ("samples=10", "sampling.rate=1e6", "sampling.n_steps=60", "sampling.burn_in=5"),
            "choose a smaller sampling.rate",
        ),
    ],
)
def test_what_cannot_be_sampled_is_refused_in_a_line(run, words, message, runs, command, tmp_path):
    shutil.copytree(runs, tmp_path / "sweep")
    done = command("bpc-eval", f"sweep/{run}", *words, "hydra.run.dir=eval")
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "eval" / "metrics.json").exists()
