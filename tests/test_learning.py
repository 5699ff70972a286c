"""Training steps: a chunk is its steps, and swept numbers do not compile again."""

import importlib
import inspect
import pkgutil

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_models import inference_of, learning_of, sgd, small_model, train_step

import bpc_cli
from bpc_cli.core.learning import Batch, make_state
from bpc_cli.core.optimisers import make_optimiser
from bpc_cli.core.training import Chunk, Examples, Training, train_chunk
from bpc_cli.data.pixels import PixelScale

SCALE = PixelScale(0.1, 0.3)


def setting(alpha_f=1.0, param_lr=1e-3, depth=3, n_steps=2, seed=0, batch=4):
    alphas = (jnp.asarray(alpha_f), jnp.asarray(1.0))
    model = small_model(seed, (4, *[5] * (depth - 1), 9), "tanh", SCALE)
    training = Training(
        inference_of(alphas, sgd(0.5, batch), n_steps),
        learning_of(alphas, make_optimiser("adam", param_lr)),
        (),
        jax.random.PRNGKey(seed),
    )
    return training, make_state(model, training.learning)


def chunk_of(training, indices, data=None, n_steps=None):
    n_steps = len(indices) if n_steps is None else n_steps
    return Chunk(Examples(*(data or small_data())), indices, np.int32(n_steps), training)


def small_data(n=20):
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (n, 9), np.uint8))
    return images, jnp.asarray(rng.integers(0, 4, n, np.uint8))


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_a_chunk_is_its_steps_one_after_another(depth):
    training, state = setting(depth=depth, n_steps=depth - 1)
    images, labels = small_data()
    indices = np.random.default_rng(1).permutation(20).astype(np.int32).reshape(5, 4)
    stepped, losses = state, []
    for index in indices:
        batch = Batch(jax.nn.one_hot(labels[index], 4), state.model.to_states(images[index]))
        stepped, metrics = train_step(stepped, batch, training.inference, training.learning)
        losses.append([float(metrics.gen_loss), float(metrics.amort_loss)])
    chunked, metrics, end = train_chunk(chunk_of(training, indices), state)
    assert bool(end.weights_are_finite)
    chunk_losses = np.stack([metrics.gen_loss, metrics.amort_loss], axis=1)
    np.testing.assert_allclose(chunk_losses, losses, rtol=1e-4)
    for a, b in zip(jax.tree.leaves(chunked), jax.tree.leaves(stepped), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("lengths", [[1] * 12, [12], [5, 7], [1, 2, 3, 6]])
def test_a_steps_bits_do_not_depend_on_where_chunks_are_cut(lengths):
    rows = np.random.default_rng(1).integers(0, 20, (12, 4), np.int32)

    def train(lengths):
        training, state = setting()
        begin, losses = 0, []
        for length in lengths:
            indices = np.zeros_like(rows)
            indices[:length] = rows[begin : begin + length]
            state, metrics, _ = train_chunk(chunk_of(training, indices, n_steps=length), state)
            losses.append(metrics.energy_after[:length])
            assert not metrics.energy_after[length:].any()
            begin += length
        return [*jax.tree.leaves(state), np.concatenate(losses)]

    for a, b in zip(train(lengths), train([4, 4, 4]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_losses_are_half_the_mean_square_before_the_update():
    training, state = setting()
    images, labels = small_data(6)
    image, label = state.model.to_states(images), jax.nn.one_hot(labels, 4)
    _, metrics = train_step(state, Batch(label, image), training.inference, training.learning)
    gen_error = np.asarray(image) - [state.model.feed_down(each)[-1] for each in label]
    amort_error = np.asarray(label) - [state.model.feed_up(each)[0] for each in image]
    np.testing.assert_allclose(metrics.gen_loss, 0.5 * np.mean(gen_error**2), rtol=1e-5)
    np.testing.assert_allclose(metrics.amort_loss, 0.5 * np.mean(amort_error**2), rtol=1e-5)
    total = metrics.generator_energy + metrics.amortiser_energy
    np.testing.assert_allclose(metrics.energy_after, total, rtol=1e-5)


def test_sweeping_weights_rates_and_seeds_compiles_once():
    compiled = []
    indices = np.zeros((3, 2), np.int32)

    def train(alpha_f, param_lr, seed):
        training, state = setting(alpha_f, param_lr, depth=2, n_steps=1, seed=seed)
        train_chunk(chunk_of(training, indices), state)

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
    training, state = setting(param_lr=1e38)
    *_, end = train_chunk(chunk_of(training, np.zeros((4, 4), np.int32)), state)
    assert not bool(end.weights_are_finite)


RAW = {
    "sgd": (optax.sgd, {"momentum": 0.5}),
    "adam": (optax.adam, {}),
    "adamw": (optax.adamw, {"weight_decay": 0.1}),
}


@pytest.mark.parametrize("name", RAW)
@pytest.mark.parametrize("injected", [False, True])
def test_any_optax_optimiser_trains_as_the_one_of_its_name(name, injected):
    make, arguments = RAW[name]
    raw = optax.inject_hyperparams(make)(0.01, **arguments) if injected else make(0.01, **arguments)
    rows = np.random.default_rng(1).integers(0, 20, (3, 4)).astype(np.int32)
    weights = []
    for optimiser in (raw, make_optimiser(name, 0.01, arguments)):
        model = small_model(0, (4, 5, 9), "tanh", SCALE)
        inference = inference_of((1.0, 1.0), optimiser, 2)
        learning = learning_of((1.0, 1.0), optimiser)
        training = Training(inference, learning, (), jax.random.PRNGKey(0))
        before = jax.device_get(jax.tree.leaves(model))
        state, *_ = train_chunk(chunk_of(training, rows), make_state(model, learning))
        weights.append(jax.tree.leaves(state.model))
    for first, raw_one, ours in zip(before, *weights, strict=True):
        np.testing.assert_allclose(raw_one, ours, rtol=1e-4, atol=1e-6)
        assert 0 < float(jnp.abs(ours - first).max()) < 0.1


def test_injected_hyperparameters_are_traced():
    """Their numbers are in the optimiser's state, which can be changed between steps."""
    model = small_model(0, (4, 5, 9), "tanh", SCALE)
    inference = inference_of((1.0, 1.0), sgd(0.1), 1)
    learning = learning_of((1.0, 1.0), optax.inject_hyperparams(optax.sgd)(learning_rate=0.1))
    state = make_state(model, learning)
    still = eqx.tree_at(
        lambda s: s.generator_optimiser_state.hyperparams["learning_rate"], state, jnp.zeros(())
    )
    images, labels = small_data()
    batch = Batch(jax.nn.one_hot(labels, 4), model.to_states(images))
    after, _ = train_step(still, batch, inference, learning)
    np.testing.assert_array_equal(after.model.generator[0].weight, model.generator[0].weight)
    assert not np.array_equal(after.model.amortiser[0].weight, model.amortiser[0].weight)


@pytest.mark.parametrize(
    ("label", "image", "message"),
    [
        (
            np.zeros(4, np.int32),
            np.zeros((4, 9)),
            r"label must be of shape \(batch, 4\), not \(4,\)",
        ),
        (np.zeros((2, 4), np.int32), np.zeros((2, 9)), "label must be of real numbers, not int32"),
        (np.zeros((2, 3)), np.zeros((2, 9)), r"label must be of shape \(batch, 4\), not \(2, 3\)"),
        (np.zeros((1, 4)), np.zeros(9), r"image must be of shape \(batch, 9\), not \(9,\)"),
        (np.zeros((2, 4)), np.zeros((2, 3, 3)), r"image must be of shape \(batch, 9\), not"),
        (np.zeros((2, 4)), np.zeros((2, 9), np.uint8), "image must be of real numbers, not uint8"),
        (np.zeros((2, 4)), np.zeros((3, 9)), "2 labels do not fit 3 images"),
    ],
)
def test_a_batch_that_the_model_cannot_be_clamped_to_is_rejected(label, image, message):
    training, state = setting()
    with pytest.raises(ValueError, match=message):
        train_step(state, Batch(label, image), training.inference, training.learning)


def test_learning_lowers_both_losses():
    training, state = setting(param_lr=1e-2, batch=20)
    indices = np.tile(np.arange(20, dtype=np.int32), (200, 1))
    _, metrics, _ = train_chunk(chunk_of(training, indices), state)
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
    with pytest.raises(AttributeError, match="is gone; what took its place: Inference, Learning"):
        _ = bpc_cli.make_rules


def test_a_compiled_step_holds_no_product_twice():
    """XLA merges what a step names twice: the amortiser's pass, and the clamped ends' predictions.

    At depth 3: three products of the amortiser's pass, three to generate the classes, the label's
    prediction; of the image's term the initial error, the slope and the Gram matrix. The first
    inference step is outside the loop of the others: one prediction that there is not yet, three
    errors sent back and a product with the Gram matrix; in the loop there are three predictions.
    Then four predictions at the relaxed activities and six gradients.
    """
    training, state = setting(depth=3, n_steps=4)
    chunk = chunk_of(training, jnp.zeros((3, 4), jnp.int32))
    program = train_chunk.lower(chunk, state).compile().compiled.as_text()
    products = [line for line in program.splitlines() if " dot(" in line]
    assert len(products) <= 3 + 3 + 1 + 3 + (1 + 3 + 1) + (3 + 3 + 1) + 4 + 6
