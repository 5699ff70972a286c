"""Training steps: a chunk is its steps, and swept numbers do not compile again."""

import importlib
import inspect
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bpc_cli
from bpc_cli.core.learning import make_state, train_chunk, train_step
from bpc_cli.core.optimisers import make_optimiser
from bpc_cli.core.rules import make_rules
from bpc_cli.data.pixels import normalise, pixel_scale


def setting(alpha_f=1.0, param_lr=1e-3, depth=3, n_steps=2):
    adam = make_optimiser("adam", param_lr)
    rules = make_rules(alpha_f, 1.0, make_optimiser("sgd", 0.5), adam, n_steps)
    sizes = (4, *[5] * (depth - 1), 9)
    return rules, make_state(jax.random.PRNGKey(0), sizes, "tanh", adam)


def small_data(n=20):
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (n, 9), np.uint8))
    return images, jnp.asarray(rng.integers(0, 4, n, np.uint8))


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_a_chunk_is_its_steps_one_after_another(depth):
    rules, state = setting(depth=depth, n_steps=depth - 1)
    images, labels = small_data()
    indices = np.random.default_rng(1).permutation(20).astype(np.int32).reshape(5, 4)
    scale = pixel_scale(0.1, 0.3)
    stepped, losses = state, []
    for index in indices:
        label = jax.nn.one_hot(labels[index], 4)
        stepped, metrics = train_step(stepped, normalise(images[index], scale), label, rules)
        losses.append([float(metrics.gen_loss), float(metrics.amort_loss)])
    chunked, metrics, finite = train_chunk(
        (images, labels, indices, np.int32(len(indices)), scale, rules), state
    )
    assert bool(finite)
    chunk_losses = np.stack([metrics.gen_loss, metrics.amort_loss], axis=1)
    np.testing.assert_allclose(chunk_losses, losses, rtol=1e-4)
    for a, b in zip(jax.tree.leaves(chunked), jax.tree.leaves(stepped), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("lengths", [[1] * 12, [12], [5, 7], [1, 2, 3, 6]])
def test_a_steps_bits_do_not_depend_on_where_chunks_are_cut(lengths):
    images, labels = small_data()
    rows = np.random.default_rng(1).integers(0, 20, (12, 4), np.int32)

    def train(lengths):
        rules, state = setting()
        begin, losses = 0, []
        for length in lengths:
            indices = np.zeros_like(rows)
            indices[:length] = rows[begin : begin + length]
            batches = (images, labels, indices, np.int32(length), pixel_scale(0.1, 0.3), rules)
            state, metrics, _ = train_chunk(batches, state)
            losses.append(metrics.energy_after[:length])
            assert not metrics.energy_after[length:].any()
            begin += length
        return [*jax.tree.leaves(state), np.concatenate(losses)]

    for a, b in zip(train(lengths), train([4, 4, 4]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_losses_are_half_the_mean_square_before_the_update():
    rules, state = setting()
    images, labels = small_data(6)
    image, label = normalise(images, pixel_scale(0.1, 0.3)), jax.nn.one_hot(labels, 4)
    _, metrics = train_step(state, image, label, rules)
    gen_error = np.asarray(image) - np.asarray(state.generator(label))
    amort_error = np.asarray(label) - np.asarray(state.amortiser(image))
    np.testing.assert_allclose(metrics.gen_loss, 0.5 * np.mean(gen_error**2), rtol=1e-5)
    np.testing.assert_allclose(metrics.amort_loss, 0.5 * np.mean(amort_error**2), rtol=1e-5)
    total = metrics.generator_energy + metrics.amortiser_energy
    np.testing.assert_allclose(metrics.energy_after, total, rtol=1e-5)


def test_sweeping_weights_rates_and_seeds_compiles_once():
    images, labels = small_data()
    scale = pixel_scale(0.1, 0.3)
    compiled = []
    indices = np.zeros((3, 2), np.int32)

    def train(alpha_f, param_lr, seed):
        adam = make_optimiser("adam", param_lr)
        rules = make_rules(alpha_f, 1.0, make_optimiser("sgd", 0.5), adam, 1)
        state = make_state(jax.random.PRNGKey(seed), (4, 7, 9), "relu", adam)
        train_chunk((images, labels, indices, np.int32(len(indices)), scale, rules), state)

    def listen(event, _seconds, **_):
        if event.endswith("backend_compile_duration"):
            compiled.append(event)

    train(1.0, 1e-3, 0)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        train(1e-3, 1e-2, 1)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert compiled == []


def test_weights_that_overflow_are_reported():
    rules, state = setting(param_lr=1e38)
    images, labels = small_data()
    indices = np.zeros((4, 4), np.int32)
    *_, finite = train_chunk(
        (images, labels, indices, np.int32(len(indices)), pixel_scale(0.1, 0.3), rules), state
    )
    assert not bool(finite)


def test_learning_lowers_both_losses():
    rules, state = setting(param_lr=1e-2)
    images, labels = small_data()
    indices = np.tile(np.arange(20, dtype=np.int32), (200, 1))
    _, metrics, _ = train_chunk(
        (images, labels, indices, np.int32(len(indices)), pixel_scale(0.1, 0.3), rules), state
    )
    assert metrics.gen_loss[-1] < 0.9 * metrics.gen_loss[0]
    assert metrics.amort_loss[-1] < 0.9 * metrics.amort_loss[0]


def test_the_package_offers_functions_and_classes_whatever_was_imported():
    for module in pkgutil.walk_packages(bpc_cli.__path__, "bpc_cli."):
        if not module.name.endswith("hydra_plugin"):  # Hydra imports it under another name
            importlib.import_module(module.name)
    for name in bpc_cli.__all__:
        assert inspect.isroutine(getattr(bpc_cli, name)) or inspect.isclass(getattr(bpc_cli, name))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = bpc_cli.nonsense


def test_a_compiled_step_holds_no_product_twice():
    """XLA merges what a step names twice: the amortiser's pass, and the clamped ends' predictions.

    At depth 3: three products of the amortiser's pass, three to draw the classes, the label's
    prediction; in the loop of relaxation four predictions and four errors sent back; then four
    predictions at the relaxed activities and six gradients.
    """
    rules, state = setting(depth=3, n_steps=4)
    images, labels = small_data()
    indices = jnp.zeros((3, 4), jnp.int32)
    batches = (images, labels, indices, np.int32(len(indices)), pixel_scale(0.1, 0.3), rules)
    program = train_chunk.lower(batches, state).compile().compiled.as_text()
    products = [line for line in program.splitlines() if " dot(" in line]
    assert len(products) <= 3 + 3 + 1 + (4 + 4) + 4 + 6
