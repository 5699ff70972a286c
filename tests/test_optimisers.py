"""Optimisers by name, against optax called by hand."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bpc_cli.core.optimisers import (
    check_optimiser,
    make_optimiser,
    optimiser_names,
    schedule_names,
)


def run(transformation, n_steps=5):
    params, state = jnp.asarray([1.0, -2.0]), transformation.init(jnp.asarray([1.0, -2.0]))
    for _ in range(n_steps):
        updates, state = transformation.update(2 * params, state, params)
        params = optax.apply_updates(params, updates)
    return np.asarray(params)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("adam", {"b1": 0.8}),
        ("adamw", {"weight_decay": 0.1}),
        ("sgd", {"momentum": 0.9, "nesterov": True}),
        ("rmsprop", {}),
        ("lion", {}),
    ],
)
def test_a_named_optimiser_is_optax_own(name, arguments):
    ours = make_optimiser(name, 0.05, arguments)
    np.testing.assert_allclose(run(ours), run(getattr(optax, name)(0.05, **arguments)), rtol=1e-5)


@pytest.mark.filterwarnings("ignore")  # optax's own advice on some of them
@pytest.mark.parametrize("name", optimiser_names())
def test_every_name_in_the_list_takes_a_step(name):
    assert np.isfinite(run(make_optimiser(name, 0.01))).all()


def test_a_schedule_takes_the_rate_and_the_length_of_the_run():
    ours = make_optimiser("sgd", 0.1, schedule="cosine_decay_schedule", n_steps=8)
    by_hand = optax.sgd(optax.cosine_decay_schedule(0.1, 8))
    np.testing.assert_allclose(run(ours, 8), run(by_hand, 8), rtol=1e-6)


def test_a_warm_up_schedule_peaks_at_the_rate():
    ours = make_optimiser(
        "sgd", 0.1, None, "warmup_cosine_decay_schedule", {"warmup_steps": 3}, n_steps=8
    )
    by_hand = optax.sgd(optax.warmup_cosine_decay_schedule(0.0, 0.1, 3, 8))
    np.testing.assert_allclose(run(ours, 8), run(by_hand, 8), rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("adm", 0.1), "unknown optimiser 'adm'; known: adabelief"),
        (("lbfgs", 0.1), "unknown optimiser 'lbfgs'"),
        (("adam", 0.1, {"foo": 1}), "unexpected keyword argument 'foo'"),
        (("adam", 0.1, {}, "cosine"), "unknown schedule 'cosine'; known: cosine_decay_schedule"),
        (("adam", 0.1, {}, "cosine_decay_schedule"), "decay_steps"),
        (("adam", 0.1, {}, None, {"alpha": 0.1}), "no schedule"),
    ],
)
def test_what_optax_does_not_have_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_optimiser(*arguments)


def test_the_known_schedules_hold_the_usual_ones():
    assert {"cosine_decay_schedule", "exponential_decay", "linear_schedule"} <= set(
        schedule_names()
    )


@pytest.mark.parametrize("what", ["adam", optax.adam, 0.1])
def test_what_is_no_optimiser_is_rejected(what):
    check_optimiser(optax.adam(0.1))
    check_optimiser(make_optimiser("adam", 0.1))
    with pytest.raises(ValueError, match=r"must be an optax\.GradientTransformation"):
        check_optimiser(what)
