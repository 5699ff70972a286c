"""Laws of the energy and of relaxation, on random models."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import infer_each, inference_of, learning_of, sgd, small_model, train_step

from bpc_cli.core.clamping import Clamping
from bpc_cli.core.energy import EnergyWeights, energy, energy_terms
from bpc_cli.core.inference import infer
from bpc_cli.core.layers import activation
from bpc_cli.core.learning import Batch, make_state
from bpc_cli.core.optimisers import make_optimiser
from bpc_cli.core.relaxation import relax
from bpc_cli.options.names import ACTIVATIONS

models = st.tuples(
    st.integers(0, 2**31 - 1),
    st.lists(st.integers(2, 6), min_size=3, max_size=5),
    st.sampled_from(sorted(ACTIVATIONS)),
)
energy_weights = st.floats(1e-3, 10.0)


def random_case(seed, sizes, act_fn):
    rng = np.random.default_rng(seed)
    states = [jnp.asarray(rng.normal(size=size)) for size in sizes]
    return small_model(seed, sizes, act_fn), states


def by_hand(model, act_fn, states, alpha_f, alpha_b):
    """The energy in NumPy, written from the equation."""
    phi, depth = activation(act_fn), len(states) - 1
    total, s = 0.0, [np.asarray(state) for state in states]
    for i in range(depth):
        above = s[i] if i == 0 else np.asarray(phi(s[i]))
        below = s[i + 1] if i == depth - 1 else np.asarray(phi(s[i + 1]))
        forward = s[i + 1] - np.asarray(model.generator[i].weight) @ above
        backward = s[i] - np.asarray(model.amortiser[i].weight) @ below
        total += alpha_f / 2 * np.sum(forward**2) + alpha_b / 2 * np.sum(backward**2)
    return total


@settings(max_examples=10, deadline=None)
@given(models, energy_weights, energy_weights)
def test_energy_is_the_equation(case, alpha_f, alpha_b):
    with jax.enable_x64(True):
        model, states = random_case(*case)
        computed = energy(model, states, EnergyWeights(alpha_f, alpha_b))
        expected = by_hand(model, case[2], states, alpha_f, alpha_b)
        np.testing.assert_allclose(float(computed), expected, rtol=1e-9)


@settings(max_examples=10, deadline=None)
@given(models, energy_weights, energy_weights)
def test_a_direction_that_is_left_out_adds_nothing(case, alpha_f, alpha_b):
    with jax.enable_x64(True):
        model, states = random_case(*case)
        both = energy(model, states, EnergyWeights(alpha_f, alpha_b))
        apart = [
            energy(model, states, EnergyWeights(alpha_f, None)),
            energy(model, states, EnergyWeights(None, alpha_b)),
        ]
        np.testing.assert_allclose(float(both), float(sum(apart)), rtol=1e-12)


@settings(max_examples=10, deadline=None)
@given(models, energy_weights, energy_weights)
def test_relaxation_at_a_small_rate_lowers_the_energy_at_every_step(case, alpha_f, alpha_b):
    with jax.enable_x64(True):
        model, (label, *activities, image) = random_case(*case)

        def energy_of(activities):
            return energy(model, [label, *activities, image], EnergyWeights(alpha_f, alpha_b))

        optimiser = sgd(1e-2 / (alpha_f + alpha_b))
        relaxation = eqx.filter_jit(relax)(activities, energy_of, optimiser, 6)
        assert int(relaxation.n_steps) == 6
        assert all(after < before for before, after in itertools.pairwise(relaxation.energies))
        np.testing.assert_allclose(relaxation.energies[-1], energy_of(relaxation.free))


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_amortised_activities_leave_the_amortiser_no_hidden_error(depth, float64):
    model, states = random_case(0, [3, *[4] * (depth - 1), 5], "gelu")
    label, *activities = model.feed_up(states[-1])
    forward, backward = energy_terms(
        model, [label, *activities, states[-1]], EnergyWeights(0.0, 1.0)
    )
    np.testing.assert_array_equal(np.asarray(forward), 0)
    np.testing.assert_allclose(backward, 0, atol=1e-25)


def test_no_inference_steps_leave_activities_alone():
    activities = [jnp.ones(3)]
    relaxation = relax(activities, lambda z: jnp.sum(z[0] ** 2), make_optimiser("sgd", 0.5), 0)
    np.testing.assert_array_equal(relaxation.free[0], activities[0])
    np.testing.assert_array_equal(relaxation.energies, [3.0])
    assert int(relaxation.n_steps) == 0


def test_a_sample_is_inferred_as_if_it_were_alone(float64):
    """Whatever else is in its batch, and when it stops."""
    model, _ = random_case(0, [3, 4, 5], "tanh")
    rng = np.random.default_rng(0)
    clampings = Clamping(jnp.eye(3), jnp.asarray(rng.normal(size=(3, 5))))
    inference = inference_of((0.4, 1.3), sgd(0.1), 50, tolerance=jnp.asarray(1e-2))
    together = jax.vmap(lambda each: infer(model, each, inference))(clampings)
    for number in range(3):
        own = Clamping(clampings.label[number], clampings.image[number])
        alone = infer(model, own, inference)
        assert int(together.relaxation.n_steps[number]) == int(alone.relaxation.n_steps) < 50
        np.testing.assert_allclose(
            together.states.activities[0][number], alone.states.activities[0], rtol=1e-12
        )


def test_samples_whose_energy_rises_are_counted(float64):
    model = small_model(0, (4, 5, 9), "tanh")
    rng = np.random.default_rng(0)
    batch = Batch(jnp.asarray(rng.random((8, 4))), jnp.asarray(rng.normal(size=(8, 9))))
    clampings = Clamping(batch.label, batch.image)
    counted = []
    for rate in (0.1, 1.2, 1.4, 3.0):
        inference, learning = inference_of((1.0, 1.0), sgd(rate), 6), learning_of((1, 1), sgd(0.0))
        energies = infer_each(model, clampings, inference).relaxation.energies
        _, metrics = train_step(make_state(model, learning), batch, inference, learning)
        counted.append(float(metrics.climbing_fraction))
        assert counted[-1] == float(np.mean(np.asarray(energies[:, -1] > 1.001 * energies[:, 0])))
    assert counted[0] == 0
    assert counted[-1] == 1


def test_each_directions_energy_is_reported_by_its_own_name(float64):
    model = small_model(0, (4, 5, 9), "tanh")
    rng = np.random.default_rng(0)
    batch = Batch(jnp.asarray(rng.random((8, 4))), jnp.asarray(rng.normal(size=(8, 9))))
    inference, learning = inference_of((0.5, 2.0), sgd(0.1), 3), learning_of((0.5, 2.0), sgd(0.0))
    states = infer_each(model, Clamping(batch.label, batch.image), inference).states.layers
    _, metrics = train_step(make_state(model, learning), batch, inference, learning)
    alone = [
        np.mean([by_hand(model, "tanh", [s[i] for s in states], *alphas) for i in range(8)])
        for alphas in ((0.5, 0.0), (0.0, 2.0))
    ]
    assert abs(alone[0] - alone[1]) > 0.1
    np.testing.assert_allclose(metrics.generator_energy, alone[0], rtol=1e-9)
    np.testing.assert_allclose(metrics.amortiser_energy, alone[1], rtol=1e-9)
