"""Inference that does not see a clamped end: the same energies and activities, for less."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_hand import ByHand
from small_models import infer_each, inference_of, sgd, small_model

from bpc_cli.core.architectures import Mlp
from bpc_cli.core.bimodal import Bimodal
from bpc_cli.core.clamping import clamp_both, clamp_images
from bpc_cli.core.inference import infer
from bpc_cli.core.models import make_model

N_SAMPLES, N_STEPS = 8, 2
ARCHITECTURES = {
    "mlp": (Mlp((6, 4), 3, "tanh"), {}),
    "biases": (Mlp((6, 4), 3, "relu", use_bias=True), {}),
    "scaled": (Mlp((4, 4), 3, "tanh", parameterisation="mupc"), {}),
    "one layer": (Mlp((), 1, "tanh"), {}),
    "latent units": (Mlp((4,), 2, "tanh"), {"n_latent": 2}),
    "bimodal": (Bimodal((5,), 4, (3,), "tanh"), {}),
    "bimodal, wide label": (Bimodal((5,), 4, (3,), "tanh"), {"n_classes": 12}),
}


def case(name: str, **more_of_inference):
    """A model, eight images with labels, and inference of α_f = 0.7 and α_b = 1.3."""
    architecture, more = ARCHITECTURES[name]
    n_classes = more.get("n_classes", 5)
    shape = (1, 40, 1)
    model = make_model(
        architecture, jax.random.PRNGKey(1), n_classes, shape, n_latent=more.get("n_latent", 0)
    )
    images = jax.random.normal(jax.random.PRNGKey(2), (N_SAMPLES, *model.state_shapes[-1]))
    labels = model.one_hot(jnp.arange(N_SAMPLES) % n_classes)
    weights = (jnp.linspace(0.5, 0.9, model.depth), 1.3)
    return model, images, labels, inference_of(weights, sgd(0.05), N_STEPS, **more_of_inference)


def is_expanded(model, clampings, inference, n_samples: int) -> list[bool]:
    """Whether the ends' terms are expanded in inference of so many samples: image, label."""
    one = jax.tree.map(lambda leaf: leaf[0], clampings)
    initial = infer(model, one, inference).initial
    return [each is not None for each in inference.expand(model, one, initial, n_samples)]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_batch_relaxes_as_each_of_its_samples_does(name, float64):
    is_free = name in ("biases", "scaled", "one layer")
    model, images, labels, inference = case(name, init="zeros" if is_free else "amortised")
    clampings = clamp_images(model, images) if is_free else clamp_both(model, labels, images)
    assert is_expanded(model, clampings, inference, N_SAMPLES)[0]
    assert is_expanded(model, clampings, inference, 1) == [False, False]
    together = infer_each(model, clampings, inference)
    alone = eqx.filter_jit(
        lambda: jax.lax.map(lambda each: infer(model, each, inference), clampings)
    )()
    close = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12)
    jax.tree.map(close, together.states, alone.states)
    close(together.relaxation.energies, alone.relaxation.energies)


def test_expanded_relaxation_is_numpys(float64):
    model = small_model(3, [5, 6, 4, 40], "tanh")
    images = jax.random.normal(jax.random.PRNGKey(4), (N_SAMPLES, 40))
    labels = model.one_hot(jnp.arange(N_SAMPLES) % 5)
    inference = inference_of((0.7, 1.3), sgd(0.05), 12)
    inferred = infer_each(model, clamp_both(model, labels, images), inference)
    oracle = ByHand(model, labels, images)
    relaxed = oracle.relaxed(oracle.amortised(), 0.7, 1.3, 12, 0.05)
    for ours, wanted in zip(inferred.states.activities, relaxed[1:-1], strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-9, atol=1e-12)


def test_a_label_wider_than_what_predicts_it_is_not_seen_either(float64):
    model = small_model(3, [60, 6, 40], "tanh")
    images = jax.random.normal(jax.random.PRNGKey(4), (N_SAMPLES, 40))
    clampings = clamp_both(model, model.one_hot(jnp.arange(N_SAMPLES)), images)
    inference = inference_of((0.7, 1.3), sgd(0.05), 12)
    assert is_expanded(model, clampings, inference, N_SAMPLES) == [True, True]
    oracle = ByHand(model, clampings.label, images)
    relaxed = oracle.relaxed(oracle.amortised(), 0.7, 1.3, 12, 0.05)
    inferred = infer_each(model, clampings, inference)
    np.testing.assert_allclose(inferred.states.activities[0], relaxed[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("end", ["a bounded image", "cross-entropy", "part of the image"])
def test_an_end_is_seen_where_its_term_is_no_square_of_a_linear_prediction(end, float64):
    bounded = {"generator_output": "tanh"} if end == "a bounded image" else {}
    label_loss = "cross_entropy" if end == "cross-entropy" else "squared"
    model = small_model(3, [60, 6, 40], "tanh", label_loss=label_loss, **bounded)
    images = jax.random.normal(jax.random.PRNGKey(4), (N_SAMPLES, 40))
    clampings = clamp_both(model, model.one_hot(jnp.arange(N_SAMPLES)), images)
    if end == "part of the image":
        clampings = clampings._replace(image_known=jnp.ones(images.shape, bool).at[:, 0].set(False))
    inference = inference_of((0.7, 1.3), sgd(0.05), 12)
    expected = [end == "cross-entropy", end != "cross-entropy"]
    assert is_expanded(model, clampings, inference, N_SAMPLES) == expected


def test_float32_keeps_the_digits_of_an_energy_that_falls_a_thousandfold():
    model = small_model(3, [4, 30, 200], "linear")
    tops = jax.random.normal(jax.random.PRNGKey(5), (N_SAMPLES, 30))
    images = jax.vmap(model.generator[-1])(10 * tops)  # which activities can explain to the last
    clampings = clamp_images(model, images)
    inference = inference_of((jnp.array([1e-6, 1.0]), 1e-6), sgd(0.3), 100, init="zeros")
    assert is_expanded(model, clampings, inference, N_SAMPLES)[0]
    found = np.asarray(infer_each(model, clampings, inference).relaxation.energies)
    with jax.enable_x64(True):
        wide = jax.tree.map(
            lambda leaf: jnp.asarray(leaf, jnp.float64) if eqx.is_inexact_array(leaf) else leaf,
            (model, clampings, inference),
        )
        exact = np.asarray(infer_each(*wide).relaxation.energies)
    assert (exact[:, -1] < 1e-3 * exact[:, 0]).all()
    np.testing.assert_allclose(found[:, [0, -1]], exact[:, [0, -1]], rtol=2e-5)
    # On the way the energy is as exact as the first one is.
    assert (abs(found - exact) < 1e-6 * exact[:, :1]).all()


def test_an_expanded_term_has_the_derivatives_of_the_term(float64):
    model, images, labels, inference = case("biases")
    one = jax.tree.map(lambda leaf: leaf[0], clamp_both(model, labels, images))
    initial = infer(model, one, inference).initial
    expanded = inference.expand(model, one, initial, N_SAMPLES).of_image
    layer, state = model.generator[-1], jnp.abs(initial.activities[-1]) + 0.3

    def direct(layer, state):
        return 0.5 * jnp.sum((images[0] - layer(state)) ** 2)

    def through_weights(layer, state):
        changed = eqx.tree_at(lambda m: m.generator[-1], model, layer)
        return inference.expand(changed, one, initial, N_SAMPLES).of_image(state)

    for derive in (lambda f: f, jax.grad, jax.hessian, lambda f: jax.jacfwd(jax.grad(f))):
        np.testing.assert_allclose(
            derive(expanded)(state), derive(lambda s: direct(layer, s))(state), rtol=1e-9
        )
    ours, wanted = (eqx.filter_grad(f)(layer, state) for f in (through_weights, direct))
    np.testing.assert_allclose(ours.weight, wanted.weight, rtol=1e-9, atol=1e-12)
