"""What is clamped and what is free, against NumPy written from the equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_hand import ByHand

from bpc_cli.core.clamping import Clamping, image_alone, infer
from bpc_cli.core.inference import relax, root_mean_square
from bpc_cli.core.learning import make_state, train_step
from bpc_cli.core.models import make_networks
from bpc_cli.core.optimisers import make_optimiser
from bpc_cli.core.rules import make_rules

ALPHA_F, ALPHA_B, RATE, N_STEPS, CLASSES = 0.4, 1.3, 0.1, 6, 4
INFERS = {"bpc": (ALPHA_F, ALPHA_B), "hpc": (ALPHA_F, 0), "genpc": (ALPHA_F, 0)}
LEARNS = {"bpc": (ALPHA_F, ALPHA_B), "hpc": (ALPHA_F, ALPHA_B), "genpc": (ALPHA_F, 0)}


def case(depth, seed=0, n=5):
    sizes = (CLASSES, *[5] * (depth - 1), 6)
    state = make_state(jax.random.PRNGKey(seed), sizes, "tanh", make_optimiser("sgd", 1.0))
    rng = np.random.default_rng(seed)
    return (
        state,
        jnp.eye(CLASSES)[rng.integers(0, CLASSES, n)],
        jnp.asarray(rng.normal(size=(n, 6))),
    )


def rules_of(algorithm="bpc", **more):
    sgd, one = make_optimiser("sgd", RATE), make_optimiser("sgd", 1.0)
    more = {"reduction": "sum"} | more
    return make_rules(ALPHA_F, ALPHA_B, sgd, one, N_STEPS, algorithm=algorithm, **more)


def unlabelled_by_hand(state, image, algorithm):
    """Start the label from the amortiser, or from all classes alike."""
    label = np.asarray(state.amortiser(image))
    if algorithm == "genpc":
        label = np.full_like(label, 1 / CLASSES)
    hand = ByHand(state.generator, state.amortiser, label, image)
    return hand, hand.generated() if algorithm == "genpc" else hand.amortised()


@pytest.mark.parametrize("algorithm", INFERS)
@pytest.mark.parametrize("depth", [2, 3])
def test_whose_label_is_unknown_learns_from_one_that_relaxes(algorithm, depth, float64):
    state, label, image = case(depth)
    known = np.array([True, False, True, False, False])
    after, metrics = train_step(
        state, image, label, rules_of(algorithm), label_known=jnp.asarray(known)
    )
    named = ByHand(state.generator, state.amortiser, label[known], image[known])
    start = named.generated() if algorithm == "genpc" else named.amortised()
    supervised = named.relaxed(start, *INFERS[algorithm], N_STEPS, RATE)
    unnamed, start = unlabelled_by_hand(state, image[~known], algorithm)
    free = unnamed.relaxed(start, *INFERS[algorithm], N_STEPS, RATE, free=range(depth))
    parts = [
        (named, supervised, known.sum() / len(known)),
        (unnamed, free, (~known).sum() / len(known)),
    ]
    expected = [[0.0] * depth, [0.0] * depth]
    for hand, states, share in parts:
        for network, gradients in zip(
            expected, hand.gradients(states, *LEARNS[algorithm]), strict=True
        ):
            for layer, gradient in enumerate(gradients):
                network[layer] = network[layer] + share * gradient
    for name, gradients in zip(("generator", "amortiser"), expected, strict=True):
        layers = zip(getattr(state, name).layers, getattr(after, name).layers, strict=True)
        for (before, now), gradient in zip(layers, gradients, strict=True):
            np.testing.assert_allclose(before.weight - now.weight, gradient, rtol=1e-7, atol=1e-12)
    energy = sum(share * hand.energy(s, *INFERS[algorithm]) for hand, s, share in parts)
    np.testing.assert_allclose(metrics.energy_after, energy, rtol=1e-9)


def test_where_all_labels_are_known_nothing_changes(float64):
    state, label, image = case(3)
    plain, _ = train_step(state, image, label, rules_of())
    masked, _ = train_step(state, image, label, rules_of(), label_known=jnp.ones(5, bool))
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(masked), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_an_unknown_label_is_never_read(float64):
    state, label, image = case(3)
    unknown = jnp.zeros(5, bool)
    one, _ = train_step(state, image, label, rules_of(), label_known=unknown)
    other, _ = train_step(state, image, label[:, ::-1], rules_of(), label_known=unknown)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_free_labels_decay_is_its_priors_pull(float64):
    """At depth 1 the energy of a free label x alone has a closed-form minimum.

    (α_f WᵀW + (α_b + λ) I) x = α_f Wᵀ y + α_b V y
    """
    decay = 0.7
    state, _, image = case(1)
    W, V = (np.asarray(network.layers[0].weight) for network in (state.generator, state.amortiser))
    y = np.asarray(image)
    left = ALPHA_F * W.T @ W + (ALPHA_B + decay) * np.eye(CLASSES)
    expected = np.linalg.solve(left, (ALPHA_F * y @ W + ALPHA_B * y @ V.T).T).T
    rules = make_rules(
        *(ALPHA_F, ALPHA_B, make_optimiser("sgd", 0.2), make_optimiser("sgd", 1.0), 500),
        reduction="sum",
        label_decay=decay,
    )
    networks = (state.generator, state.amortiser)
    clamping = image_alone(image, CLASSES)
    states, _ = infer(networks, clamping, clamping.begin("amortised", *networks), rules)
    np.testing.assert_allclose(states.label, expected, atol=1e-9)


@pytest.mark.parametrize("algorithm", INFERS)
def test_unknown_pixels_relax_and_known_ones_stay(algorithm, float64):
    state, label, image = case(3)
    known = np.array([[True, False, True, True, False, False]])
    networks = (state.generator, state.amortiser)
    clamping = Clamping(label, image, image_known=jnp.asarray(known))
    rules = rules_of(algorithm)
    free = clamping.begin(rules.start, *networks)
    states, _ = infer(networks, clamping, free, rules)
    hand = ByHand(*networks, label, image)
    start = hand.generated() if algorithm == "genpc" else hand.amortised()
    expected = hand.relaxed(
        start, *INFERS[algorithm], N_STEPS, RATE, free=(1, 2, 3), frozen_pixels=known[0]
    )
    for ours, theirs in zip(
        (states.label, *states.activities, states.image), expected, strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    np.testing.assert_array_equal(states.image[:, known[0]], image[:, known[0]])


def test_relaxing_ends_where_gradients_fall_below_the_tolerance(float64):
    networks = make_networks(jax.random.PRNGKey(1), [3, 4, 5], "tanh")
    rng = np.random.default_rng(1)
    label, image = jnp.eye(3)[:2], jnp.asarray(rng.normal(size=(2, 5)))
    hand = ByHand(*networks, label, image)
    states, trace, sizes = hand.amortised(), [], []
    for _ in range(40):
        trace.append(hand.energy(states, ALPHA_F, ALPHA_B))
        moved = hand.relaxed(states, ALPHA_F, ALPHA_B, 1, RATE)
        sizes.append(np.sqrt(np.mean(((states[1] - moved[1]) / RATE) ** 2)))
        states = moved
    n_steps = 13
    tolerance = (sizes[n_steps] + sizes[n_steps - 1]) / 2
    assert np.all(np.diff(sizes) < 0)
    clamping = Clamping(label, image)
    rules = make_rules(
        *(ALPHA_F, ALPHA_B, make_optimiser("sgd", RATE), make_optimiser("sgd", 1.0), 40),
        reduction="sum",
        tolerance=tolerance,
    )
    free = clamping.begin("amortised", *networks)
    _, relaxation = infer(networks, clamping, free, rules)
    assert relaxation.n_steps == n_steps
    expected = hand.relaxed(hand.amortised(), ALPHA_F, ALPHA_B, n_steps, RATE)
    np.testing.assert_allclose(relaxation.free.activities[0], expected[1], rtol=1e-9)
    ended = hand.energy(expected, ALPHA_F, ALPHA_B)
    np.testing.assert_allclose(relaxation.energies, trace[:n_steps] + [ended] * (40 - n_steps))


def test_a_tolerance_of_nothing_takes_all_steps(float64):
    def energy(free):
        return jnp.sum(free[0] ** 2) / 2

    free, optimiser = [jnp.ones((2, 3))], make_optimiser("sgd", 0.1)
    plain = relax(free, energy, optimiser, 5)
    bounded = relax(free, energy, optimiser, 5, tolerance=0.0)
    assert bounded.n_steps == 5
    np.testing.assert_allclose(plain.free[0], bounded.free[0], rtol=1e-12)
    np.testing.assert_allclose(plain.energies, bounded.energies, rtol=1e-12)


def test_a_batchs_size_does_not_change_its_gradients_root_mean_square():
    gradient = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32)
    of_means = [jnp.asarray(gradient / 3)]
    many = [jnp.asarray(np.tile(gradient, (4, 1)) / 12)]
    expected = np.sqrt(np.mean(gradient**2))
    np.testing.assert_allclose(root_mean_square(of_means), expected, rtol=1e-5)
    np.testing.assert_allclose(root_mean_square(many), expected, rtol=1e-5)
