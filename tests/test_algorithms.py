"""Every model against NumPy written from its equations, and the laws that tie them together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_hand import ByHand
from small_models import inference_of, learning_of, sgd, small_model, train_step

from bpc_cli.core.clamping import Clamping
from bpc_cli.core.energy import EnergyWeights, energy
from bpc_cli.core.inference import initialise
from bpc_cli.core.learning import Batch, make_state
from bpc_cli.core.optimisers import make_optimiser
from bpc_cli.options.algorithms import ALGORITHMS

ALPHA_F, ALPHA_B, RATE = 0.3, 1.7, 0.05
BATCH = 3


def case(depth, seed=0):
    model = small_model(seed, (4, *[5] * (depth - 1), 6), "tanh")
    rng = np.random.default_rng(seed)
    return model, jnp.eye(4)[rng.integers(0, 4, BATCH)], jnp.asarray(rng.normal(size=(BATCH, 6)))


def learn(model, label, image, algorithm, n_steps, alphas=(ALPHA_F, ALPHA_B), rate=RATE):
    """Take a step of gradient descent at rate 1, and return minus what was added to each weight."""
    inference = inference_of(alphas, sgd(rate), n_steps, algorithm)
    learning = learning_of(alphas, sgd(1.0), algorithm)
    after, metrics = train_step(
        make_state(model, learning), Batch(label, image), inference, learning
    )
    gradients = [
        [
            np.asarray(before.weight - now.weight)
            for before, now in zip(getattr(model, n), getattr(after.model, n), strict=True)
        ]
        for n in ("generator", "amortiser")
    ]
    return gradients, metrics


# What each algorithm relaxes on and learns from, as (α_f, α_b), and how it is initialised.
BY_EQUATION = {
    "bpc": ((ALPHA_F, ALPHA_B), (ALPHA_F, ALPHA_B), "amortised"),
    "hpc": ((ALPHA_F, 0), (ALPHA_F, ALPHA_B), "amortised"),
    "discpc": ((0, ALPHA_B), (0, ALPHA_B), "amortised"),
    "genpc": ((ALPHA_F, 0), (ALPHA_F, 0), "generated"),
}


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("algorithm", BY_EQUATION)
def test_predictive_coding_is_its_equations(algorithm, depth, float64):
    model, label, image = case(depth)
    gradients, metrics = learn(model, label, image, algorithm, n_steps=5)
    hand = ByHand(model, label, image)
    infer, learnt, begin = BY_EQUATION[algorithm]
    first = getattr(hand, begin)()
    relaxed = hand.relaxed(first, *infer, 5, RATE)
    np.testing.assert_allclose(metrics.energy_before, hand.energy(first, *infer), rtol=1e-9)
    np.testing.assert_allclose(metrics.energy_after, hand.energy(relaxed, *infer), rtol=1e-9)
    for ours, theirs in zip(gradients, hand.gradients(relaxed, *learnt), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("depth", [1, 3])
def test_backpropagation_is_the_gradient_of_both_losses(depth, float64):
    model, label, image = case(depth)
    gradients, metrics = learn(model, label, image, "bp", n_steps=0)
    hand = ByHand(model, label, image)

    def losses():
        drawn, named = hand.label, hand.image
        for i in range(depth):
            drawn = hand.phi(i, drawn) @ hand.W[i].T
        for i in reversed(range(depth)):
            named = hand.phi(i + 1, named) @ hand.V[i].T
        return (
            ALPHA_F * ((hand.image - drawn) ** 2).sum()
            + ALPHA_B * ((hand.label - named) ** 2).sum()
        ) / (2 * BATCH)

    np.testing.assert_allclose(metrics.energy_after, losses(), rtol=1e-9)
    step = 1e-6
    for weights, ours in zip((hand.W, hand.V), gradients, strict=True):
        for i in range(depth):
            weights[i] = weights[i].copy()
            for place in [(0, 0), (1, 2), (3, 3)]:
                weights[i][place] += step
                above = losses()
                weights[i][place] -= 2 * step
                below = losses()
                weights[i][place] += step
                np.testing.assert_allclose(
                    ours[i][place], (above - below) / (2 * step), rtol=1e-5, atol=1e-9
                )


def test_at_small_rates_discriminative_pc_learns_as_backpropagation(float64):
    """The k-th hidden layer from the label learns at rate^k times backpropagation's gradient."""
    model, label, image = case(3)
    (_, exact), _ = learn(model, label, image, "bp", n_steps=0, alphas=(1.0, 1.0))
    differences = []
    for rate in (1e-2, 1e-3):
        # After depth - 1 steps the label's error has just reached the layer next to the image.
        (_, local), _ = learn(model, label, image, "discpc", 2, alphas=(1.0, 1.0), rate=rate)
        np.testing.assert_allclose(local[0], exact[0], rtol=10 * rate, atol=1e-3 * rate)
        # One step more has passed at the layer next to the label: 2 · rate of its gradient.
        np.testing.assert_allclose(local[1] / (2 * rate), exact[1], rtol=20 * rate, atol=10 * rate)
        np.testing.assert_allclose(local[2] / rate**2, exact[2], rtol=20 * rate, atol=10 * rate)
        differences.append(np.abs(local[1] / (2 * rate) - exact[1]).max())
    assert differences[1] < differences[0] / 5  # it falls with the rate


def test_amortised_activities_and_its_own_label_leave_discriminative_pc_nothing(float64):
    model, _, image = case(4)
    label = jax.vmap(model.feed_up)(image)[0]
    gradients, metrics = learn(model, label, image, "discpc", n_steps=3)
    np.testing.assert_allclose(metrics.energy_before, 0, atol=1e-25)
    np.testing.assert_allclose(metrics.energy_after, 0, atol=1e-25)
    assert all(np.abs(gradient).max() < 1e-12 for network in gradients for gradient in network)


@pytest.mark.parametrize(("algorithm", "still"), [("discpc", "generator"), ("genpc", "amortiser")])
def test_a_direction_that_does_not_learn_stays_as_it_is(algorithm, still):
    model = small_model(0, (4, 5, 6), "relu")
    adamw = make_optimiser("adamw", 0.1, {"weight_decay": 0.5})
    learning = learning_of((1.0, 1.0), adamw, algorithm)
    after, _ = train_step(
        make_state(model, learning),
        Batch(jnp.eye(4)[:2], jnp.ones((2, 6))),
        inference_of((1.0, 1.0), sgd(0.1), 1, algorithm),
        learning,
    )
    for name in ("generator", "amortiser"):
        pairs = zip(
            *(jax.tree.leaves(getattr(each, name)) for each in (model, after.model)), strict=True
        )
        assert all(np.array_equal(a, b) for a, b in pairs) == (name == still)


def test_layer_weights_multiply_each_layers_error(float64):
    model, label, image = case(3)
    hand = ByHand(model, label, image)
    s = hand.amortised()
    e, d = hand.errors(s)
    forward, backward = np.array([0.5, 2.0, 0.0]), np.array([1.0, 0.0, 3.0])
    expected = sum(
        forward[i] * (e[i] ** 2).sum() + backward[i] * (d[i] ** 2).sum() for i in range(3)
    ) / (2 * BATCH)
    _, metrics = learn(
        model, label, image, "bpc", 2, alphas=(jnp.asarray(forward), jnp.asarray(backward))
    )
    np.testing.assert_allclose(metrics.energy_before, expected, rtol=1e-9)


def test_activities_are_initialised_as_asked(float64):
    model, label, image = case(3)
    hand = ByHand(model, label, image)

    def activities(how, key=None):
        return jax.vmap(lambda *ends: initialise(model, Clamping(*ends), how, key).activities)(
            label, image
        )

    for how, expected in (("amortised", hand.amortised()), ("generative", hand.generated())):
        for ours, theirs in zip(activities(how), expected[1:-1], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert all(not activity.any() for activity in activities("zeros"))
    noise, other = (activities("noise", jax.random.PRNGKey(seed)) for seed in (0, 1))
    assert [activity.shape for activity in noise] == [(BATCH, 5), (BATCH, 5)]
    assert not np.array_equal(noise[0], other[0])
    for how in ("nothing", "noise"):
        with pytest.raises(ValueError, match=f"cannot be initialised by '{how}'"):
            activities(how)


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_a_linear_networks_hessian_and_minimum_are_the_closed_forms(depth, float64):
    """With s = (label, z_0, …, image), W_i: s_i → s_{i+1} and V_i: s_{i+1} → s_i, per sample:

    ∂²F/∂z_k² = α_f (I + W_{k+1}ᵀ W_{k+1}) + α_b (I + V_kᵀ V_k) and
    ∂²F/∂z_{k+1}∂z_k = -(α_f W_{k+1} + α_b V_{k+1}ᵀ), as z_k is s_{k+1}.
    """
    width, n_hidden = 4, depth - 1
    sizes = [3, *[width] * n_hidden, 5]
    model = small_model(2, sizes, "linear")
    W = [np.asarray(layer.weight) for layer in model.generator]
    V = [np.asarray(layer.weight) for layer in model.amortiser]
    rng = np.random.default_rng(0)
    label, image = jnp.asarray(rng.normal(size=3)), jnp.asarray(rng.normal(size=5))

    def energy_of(flat):
        states = [label, *flat.reshape(n_hidden, width), image]
        return energy(model, states, EnergyWeights(ALPHA_F, ALPHA_B))

    hessian = np.asarray(jax.jit(jax.hessian(energy_of))(jnp.zeros(n_hidden * width)))
    expected = np.zeros((n_hidden * width, n_hidden * width))
    for k in range(n_hidden):
        own = slice(k * width, (k + 1) * width)
        expected[own, own] = ALPHA_F * (np.eye(width) + W[k + 1].T @ W[k + 1])
        expected[own, own] += ALPHA_B * (np.eye(width) + V[k].T @ V[k])
        if k + 1 < n_hidden:
            below = slice((k + 1) * width, (k + 2) * width)
            expected[below, own] = -(ALPHA_F * W[k + 1] + ALPHA_B * V[k + 1].T)
            expected[own, below] = expected[below, own].T
    np.testing.assert_allclose(hessian, expected, atol=1e-12)
    gradient = jax.jit(jax.grad(energy_of))
    pull = np.asarray(gradient(jnp.zeros(n_hidden * width)))
    minimum = np.linalg.solve(expected, -pull)
    rate = 1.0 / np.linalg.eigvalsh(expected).max()
    flat = np.zeros(n_hidden * width)
    for _ in range(2_000):
        flat = flat - rate * np.asarray(gradient(flat))
    np.testing.assert_allclose(flat, minimum, atol=1e-9)


def test_every_algorithm_has_its_equations_here():
    assert {*BY_EQUATION, "bp"} == set(ALGORITHMS)
