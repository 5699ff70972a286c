"""Replicas: several networks in one program do what each does alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpc_cli.core.ensembles import join, stack, take
from bpc_cli.core.learning import make_state, train_chunk, train_replicas
from bpc_cli.core.optimisers import make_optimiser
from bpc_cli.core.rules import make_rules
from bpc_cli.data.pixels import pixel_scale
from bpc_cli.evaluation.classification import class_means, evaluate_networks, evaluate_replicas

SCALE = pixel_scale(0.1, 0.3)
N_STEPS = 6


def setting(seed, alpha_f, param_lr, depth):
    adam = make_optimiser("adam", param_lr)
    rules = make_rules(alpha_f, 1.0, make_optimiser("sgd", 0.5), adam, depth)
    sizes = (4, *[5] * (depth - 1), 9)
    return rules, make_state(jax.random.PRNGKey(seed), sizes, "tanh", adam, use_bias=True)


def data():
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (20, 9), np.uint8))
    labels = jnp.asarray(rng.integers(0, 4, 20, np.uint8))
    return images, labels


def batches_of(seed):
    return np.random.default_rng(seed).integers(0, 20, (N_STEPS, 4), np.int32)


NUMBERS = [(0, 1.0, 1e-3), (1, 1e-3, 1e-2), (7, 0.0, 1e-4)]


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_each_replica_is_a_run_of_its_own(depth, float64):
    images, labels = data()
    settings = [setting(*numbers, depth) for numbers in NUMBERS]
    indices = np.stack([batches_of(seed) for seed, *_ in NUMBERS])
    rules, states = (stack(trees) for trees in zip(*settings, strict=True))
    steps = np.int32(N_STEPS)
    states, metrics, finite = train_replicas((images, labels, indices, steps, SCALE, rules), states)
    assert finite.tolist() == [True] * 3
    for k, (own_rules, state) in enumerate(settings):
        alone, own_metrics, _ = train_chunk(
            (images, labels, indices[k], steps, SCALE, own_rules), state
        )
        for expected, trees in ((alone, states), (own_metrics, metrics)):
            ours = take(jax.device_get(trees), k)
            for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_a_single_replica_is_the_plain_program_to_the_bit():
    images, labels = data()
    rules, state = setting(0, 1.0, 1e-3, 3)
    states, stacked_rules = stack([state]), stack([rules])
    alone, _, _ = train_chunk(
        (images, labels, batches_of(0), np.int32(N_STEPS), SCALE, rules), state
    )
    states, _, _ = train_replicas(
        (images, labels, batches_of(0)[None], np.int32(N_STEPS), SCALE, stacked_rules), states
    )
    ours = take(jax.device_get(states), 0)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(alone), strict=True):
        assert np.array_equal(a, b)


def test_replicas_are_tested_like_networks_alone():
    images, labels = data()
    states = [setting(*numbers, 3)[1] for numbers in NUMBERS]
    means = class_means(np.asarray(images), np.asarray(labels), 4)
    stacked = stack(states)
    together = evaluate_replicas(
        stacked.generator, stacked.amortiser, images, np.asarray(labels), means, SCALE
    )
    for state, test in zip(states, together, strict=True):
        alone = evaluate_networks(
            state.generator, state.amortiser, images, np.asarray(labels), means, SCALE
        )
        assert test.accuracy == alone.accuracy
        np.testing.assert_allclose(test.drawn, alone.drawn, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(test.generation_error, alone.generation_error, rtol=1e-5)


def test_what_is_stacked_or_joined_can_be_taken_out_again():
    states = [setting(seed, 1.0, 1e-3, 2)[1] for seed in range(3)]
    joined = join([stack(states[:2]), stack(states[2:])])
    for k, state in enumerate(states):
        for a, b in zip(jax.tree.leaves(take(joined, k)), jax.tree.leaves(state), strict=True):
            assert np.array_equal(a, b)
    pair = take(joined, slice(1, 3))
    assert np.array_equal(
        take(pair, 1).generator.layers[0].weight, states[2].generator.layers[0].weight
    )
