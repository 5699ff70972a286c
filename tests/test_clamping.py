"""What is clamped and what is free, against NumPy written from the equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_hand import ByHand
from small_models import infer_each, inference_of, learning_of, sgd, small_model, train_step

from bpc_cli.core.clamping import Clamping, clamp_images
from bpc_cli.core.learning import Batch, make_state
from bpc_cli.core.relaxation import relax, root_mean_square

ALPHA_F, ALPHA_B, RATE, N_STEPS, CLASSES = 0.4, 1.3, 0.1, 6, 4
INFERS = {"bpc": (ALPHA_F, ALPHA_B), "hpc": (ALPHA_F, 0), "genpc": (ALPHA_F, 0)}
LEARNS = {"bpc": (ALPHA_F, ALPHA_B), "hpc": (ALPHA_F, ALPHA_B), "genpc": (ALPHA_F, 0)}


def case(depth, seed=0, n=5):
    model = small_model(seed, (CLASSES, *[5] * (depth - 1), 6), "tanh")
    rng = np.random.default_rng(seed)
    return (
        model,
        jnp.eye(CLASSES)[rng.integers(0, CLASSES, n)],
        jnp.asarray(rng.normal(size=(n, 6))),
    )


def inference(algorithm="bpc", n_steps=N_STEPS, rate=RATE, **more):
    return inference_of((ALPHA_F, ALPHA_B), sgd(rate), n_steps, algorithm, **more)


def learn(model, batch, algorithm="bpc"):
    """Take a step of gradient descent at rate 1."""
    learning = learning_of((ALPHA_F, ALPHA_B), sgd(1.0), algorithm)
    state, metrics = train_step(make_state(model, learning), batch, inference(algorithm), learning)
    return state.model, metrics


def unlabelled_by_hand(model, image, algorithm):
    """Initialise the label by the amortiser, or by all classes alike."""
    label = np.asarray(jax.vmap(model.feed_up)(image)[0])
    if algorithm == "genpc":
        label = np.full_like(label, 1 / CLASSES)
    hand = ByHand(model, label, image)
    return hand, hand.generated() if algorithm == "genpc" else hand.amortised()


@pytest.mark.parametrize("algorithm", INFERS)
@pytest.mark.parametrize("depth", [2, 3])
def test_whose_label_is_unknown_learns_from_one_that_relaxes(algorithm, depth, float64):
    model, label, image = case(depth)
    known = np.array([True, False, True, False, False])
    after, metrics = learn(model, Batch(label, image, jnp.asarray(known)), algorithm)
    named = ByHand(model, label[known], image[known])
    start = named.generated() if algorithm == "genpc" else named.amortised()
    supervised = named.relaxed(start, *INFERS[algorithm], N_STEPS, RATE)
    unnamed, start = unlabelled_by_hand(model, image[~known], algorithm)
    free = unnamed.relaxed(start, *INFERS[algorithm], N_STEPS, RATE, free=range(depth))
    parts = [
        (named, supervised, known.sum() / len(known)),
        (unnamed, free, (~known).sum() / len(known)),
    ]
    expected = [[0.0] * depth, [0.0] * depth]
    for hand, states, fraction in parts:
        for network, gradients in zip(
            expected, hand.gradients(states, *LEARNS[algorithm]), strict=True
        ):
            for layer, gradient in enumerate(gradients):
                network[layer] = network[layer] + fraction * gradient
    for name, gradients in zip(("generator", "amortiser"), expected, strict=True):
        layers = zip(getattr(model, name), getattr(after, name), strict=True)
        for (before, now), gradient in zip(layers, gradients, strict=True):
            np.testing.assert_allclose(before.weight - now.weight, gradient, rtol=1e-7, atol=1e-12)
    energy = sum(part * hand.energy(s, *INFERS[algorithm]) for hand, s, part in parts)
    np.testing.assert_allclose(metrics.energy_after, energy, rtol=1e-9)


def test_where_all_labels_are_known_nothing_changes(float64):
    model, label, image = case(3)
    plain, _ = learn(model, Batch(label, image))
    masked, _ = learn(model, Batch(label, image, jnp.ones(5, bool)))
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(masked), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_an_unknown_label_is_never_read(float64):
    model, label, image = case(3)
    unknown = jnp.zeros(5, bool)
    one, _ = learn(model, Batch(label, image, unknown))
    other, _ = learn(model, Batch(label[:, ::-1], image, unknown))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_free_labels_precision_is_its_priors_pull(float64):
    """At depth 1 the energy of a free label x alone has a closed-form minimum.

    (α_f WᵀW + (α_b + λ) I) x = α_f Wᵀ y + α_b V y
    """
    precision = 0.7
    model, _, image = case(1)
    W, V = (np.asarray(layers[0].weight) for layers in (model.generator, model.amortiser))
    y = np.asarray(image)
    left = ALPHA_F * W.T @ W + (ALPHA_B + precision) * np.eye(CLASSES)
    expected = np.linalg.solve(left, (ALPHA_F * y @ W + ALPHA_B * y @ V.T).T).T
    how = inference(n_steps=500, rate=0.2, label_precision=jnp.asarray(precision))
    inferred = infer_each(model, clamp_images(model, image), how)
    np.testing.assert_allclose(inferred.states.label, expected, atol=1e-9)


@pytest.mark.parametrize("algorithm", INFERS)
def test_unknown_pixels_relax_and_known_ones_stay(algorithm, float64):
    model, label, image = case(3)
    known = np.array([True, False, True, True, False, False])
    clampings = Clamping(label, image, image_known=jnp.tile(known, (len(image), 1)))
    states = infer_each(model, clampings, inference(algorithm)).states
    hand = ByHand(model, label, image)
    start = hand.generated() if algorithm == "genpc" else hand.amortised()
    expected = hand.relaxed(
        start, *INFERS[algorithm], N_STEPS, RATE, free=(1, 2, 3), frozen_pixels=known
    )
    for ours, theirs in zip(states.layers, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    np.testing.assert_array_equal(states.image[:, known], image[:, known])


def test_a_sample_stops_where_its_gradient_falls_below_the_tolerance(float64):
    model = small_model(1, [3, 4, 5], "tanh")
    rng = np.random.default_rng(1)
    label, image = jnp.eye(3)[:1], jnp.asarray(rng.normal(size=(1, 5)))
    hand = ByHand(model, label, image)
    states, trace, sizes = hand.amortised(), [], []
    for _ in range(40):
        trace.append(hand.energy(states, ALPHA_F, ALPHA_B))
        moved = hand.relaxed(states, ALPHA_F, ALPHA_B, 1, RATE)
        sizes.append(np.sqrt(np.mean(((states[1] - moved[1]) / RATE) ** 2)))
        states = moved
    n_steps = 13
    tolerance = (sizes[n_steps] + sizes[n_steps - 1]) / 2
    assert np.all(np.diff(sizes) < 0)
    how = inference(n_steps=40, tolerance=jnp.asarray(tolerance))
    relaxation = infer_each(model, Clamping(label, image), how).relaxation
    assert relaxation.n_steps.tolist() == [n_steps]
    expected = hand.relaxed(hand.amortised(), ALPHA_F, ALPHA_B, n_steps, RATE)
    np.testing.assert_allclose(relaxation.free.activities[0], expected[1], rtol=1e-9)
    ended = hand.energy(expected, ALPHA_F, ALPHA_B)
    np.testing.assert_allclose(relaxation.energies[0], trace[:n_steps] + [ended] * (41 - n_steps))


@pytest.mark.parametrize("tolerance", [None, 0.0, 0.5])
def test_what_is_observed_is_what_there_was_before_each_step_and_at_the_end(tolerance, float64):
    def energy(free):
        return jnp.sum(free**2) / 2

    relaxation = relax(jnp.ones(3), energy, sgd(0.1), 9, tolerance, lambda free, _: free)
    n_taken = 9 if tolerance != 0.5 else 7  # 0.9^7 is the first below a half
    path = 0.9 ** np.minimum(np.arange(10), n_taken)
    assert int(relaxation.n_steps) == n_taken
    np.testing.assert_allclose(relaxation.observed, path[:, None] * np.ones(3))
    np.testing.assert_allclose(relaxation.energies, 3 / 2 * path**2)


@pytest.mark.parametrize("n_steps", [0, 1, 9])
@pytest.mark.parametrize("tolerance", [None, 0.5, 2.0])
def test_without_a_trace_the_steps_are_the_same(tolerance, n_steps, float64):
    def energy(free):
        return 0.5 * jnp.sum(free**2)

    traced, bare = (
        relax(jnp.ones(3), energy, sgd(0.1), n_steps, tolerance, trace=trace)
        for trace in (True, False)
    )
    np.testing.assert_allclose(bare.free, traced.free, rtol=1e-12)
    np.testing.assert_allclose(bare.energies, traced.energies[jnp.array([0, -1])], rtol=1e-12)
    assert bare.n_steps == traced.n_steps == min(n_steps, {None: 9, 0.5: 7, 2.0: 0}[tolerance])


def test_the_root_mean_square_is_over_all_entries():
    gradient = np.random.default_rng(0).normal(size=7)
    parts = {"label": None, "activities": [jnp.asarray(gradient[:3]), jnp.asarray(gradient[3:])]}
    expected = np.sqrt(np.mean(gradient**2))
    np.testing.assert_allclose(root_mean_square(parts), expected, rtol=1e-5)
    assert root_mean_square([]) == 0
