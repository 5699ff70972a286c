"""Laws of the energy and of relaxation, on random networks."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpc_cli.core.energy import energy, energy_terms
from bpc_cli.core.inference import amortise, relax
from bpc_cli.core.models import ACTIVATIONS, make_networks
from bpc_cli.core.optimisers import make_optimiser

networks = st.tuples(
    st.integers(0, 2**31 - 1),
    st.lists(st.integers(2, 6), min_size=3, max_size=5),
    st.sampled_from(sorted(ACTIVATIONS)),
)
energy_weights = st.floats(1e-3, 10.0)


def random_case(seed, sizes, act_fn, batch=3):
    generator, amortiser = make_networks(jax.random.PRNGKey(seed), sizes, act_fn)
    rng = np.random.default_rng(seed)
    states = [jnp.asarray(rng.normal(size=(batch, size))) for size in sizes]
    return generator, amortiser, states


def by_hand(generator, amortiser, states, alpha_f, alpha_b):
    """The energy in NumPy, written from the equation, sample by sample."""
    phi = ACTIVATIONS[generator.act_fn]
    batch, depth = len(states[0]), len(states) - 1
    total = 0.0
    for sample in range(batch):
        s = [np.asarray(state[sample]) for state in states]
        for i in range(depth):
            above = s[i] if i == 0 else np.asarray(phi(s[i]))
            below = s[i + 1] if i == depth - 1 else np.asarray(phi(s[i + 1]))
            forward = s[i + 1] - np.asarray(generator.layers[i].weight) @ above
            backward = s[i] - np.asarray(amortiser.layers[i].weight) @ below
            total += alpha_f / 2 * np.sum(forward**2) + alpha_b / 2 * np.sum(backward**2)
    return total / batch


@settings(max_examples=10, deadline=None)
@given(networks, energy_weights, energy_weights)
def test_energy_is_the_equation(network, alpha_f, alpha_b):
    with jax.enable_x64(True):
        generator, amortiser, states = random_case(*network)
        label, *activities, image = states
        computed = energy(generator, amortiser, label, activities, image, alpha_f, alpha_b)
        expected = by_hand(generator, amortiser, states, alpha_f, alpha_b)
        np.testing.assert_allclose(float(computed), expected, rtol=1e-6)


@settings(max_examples=10, deadline=None)
@given(networks, energy_weights, energy_weights)
def test_energy_does_not_depend_on_the_order_of_samples(network, alpha_f, alpha_b):
    with jax.enable_x64(True):
        generator, amortiser, states = random_case(*network)
        values = [
            float(energy(generator, amortiser, s[0], s[1:-1], s[-1], alpha_f, alpha_b))
            for s in (states, [state[::-1] for state in states])
        ]
        np.testing.assert_allclose(values[0], values[1], rtol=1e-12)


@settings(max_examples=10, deadline=None)
@given(networks, energy_weights, energy_weights)
def test_relaxation_at_a_small_rate_lowers_the_energy_at_every_step(network, alpha_f, alpha_b):
    with jax.enable_x64(True):
        generator, amortiser, (label, *activities, image) = random_case(*network)

        def energy_of(activities):
            return energy(generator, amortiser, label, activities, image, alpha_f, alpha_b)

        optimiser = make_optimiser("sgd", 1e-2 / (alpha_f + alpha_b))
        relaxed, trace, *_ = relax(activities, energy_of, optimiser, 6)
        trace = [*trace.tolist(), float(energy_of(relaxed))]
        assert all(after < before for before, after in itertools.pairwise(trace))


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_amortised_activities_leave_the_amortiser_no_hidden_error(depth, float64):
    sizes = [3, *[4] * (depth - 1), 5]
    generator, amortiser, states = random_case(0, sizes, "gelu")
    activities, label = amortise(amortiser, states[-1])
    forward, backward = energy_terms(generator, amortiser, label, activities, states[-1], 0.0, 1.0)
    np.testing.assert_array_equal(np.asarray(forward), 0)
    np.testing.assert_allclose(backward, 0, atol=1e-25)


def test_no_inference_steps_leave_activities_alone():
    activities = [jnp.ones((2, 3))]
    relaxed, trace, *_ = relax(
        activities, lambda z: jnp.sum(z[0] ** 2), make_optimiser("sgd", 0.5), 0
    )
    np.testing.assert_array_equal(relaxed[0], activities[0])
    assert trace.shape == (0,)
