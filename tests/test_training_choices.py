"""Choices of training: cross-entropy, muPC, noise, clipping, unlabelled and validation images."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from by_hand import ByHand
from hypothesis import given, settings
from hypothesis import strategies as st
from run_files import lines_of, summary_of
from small_models import inference_of, learning_of, sgd, small_model, train_step

import bpc_cli
from bpc_cli.core.learning import Batch, make_state
from bpc_cli.core.optimisers import clipped, make_optimiser
from bpc_cli.core.training import Chunk, Examples, Training, train_chunk
from bpc_cli.data.augmentation import AUGMENTATIONS, Noise, Shift
from bpc_cli.data.datasets import load_digits
from bpc_cli.data.examples import batch_indices, labelled_examples, shortened
from bpc_cli.data.pixels import PixelScale
from bpc_cli.errors import UserError

ALPHA_F, ALPHA_B, RATE, BATCH, CLASSES = 0.3, 1.7, 0.05, 3, 4


class WithCrossEntropy(ByHand):
    """The amortiser's error at the label is that of a softmax: label - softmax(prediction)."""

    def errors(self, s):
        forward, backward = super().errors(s)
        odds = np.exp(s[0] - backward[0])
        return forward, [s[0] - odds / odds.sum(1, keepdims=True), *backward[1:]]

    def energies(self, s, alpha_f, alpha_b):
        forward, backward = super().errors(s)
        logits = s[0] - backward[0]
        logits = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        rest = sum(alpha_f * (e**2).sum(1) for e in forward) / 2
        rest += sum(alpha_b * (d**2).sum(1) for d in backward[1:]) / 2
        return rest - alpha_b * (s[0] * logits).sum(1)


@pytest.mark.parametrize("depth", [1, 3])
def test_cross_entropy_at_the_label_is_its_equation(depth, float64):
    sizes = (CLASSES, *[5] * (depth - 1), 6)
    model = small_model(0, sizes, "tanh", label_loss="cross_entropy")
    rng = np.random.default_rng(0)
    label, image = jnp.eye(CLASSES)[:BATCH], jnp.asarray(rng.normal(size=(BATCH, 6)))
    alphas = (ALPHA_F, ALPHA_B)
    learning = learning_of(alphas, sgd(1.0))
    after, metrics = train_step(
        make_state(model, learning),
        Batch(label, image),
        inference_of(alphas, sgd(RATE), 5),
        learning,
    )
    hand = WithCrossEntropy(model, label, image)
    relaxed = hand.relaxed(hand.amortised(), ALPHA_F, ALPHA_B, 5, RATE)
    np.testing.assert_allclose(metrics.energy_after, hand.energy(relaxed, ALPHA_F, ALPHA_B))
    expected = hand.gradients(relaxed, ALPHA_F, ALPHA_B)
    for name, gradients in zip(("generator", "amortiser"), expected, strict=True):
        layers = zip(getattr(model, name), getattr(after.model, name), strict=True)
        for (before, now), gradient in zip(layers, gradients, strict=True):
            np.testing.assert_allclose(before.weight - now.weight, gradient, rtol=1e-7, atol=1e-12)
    predicted = jax.vmap(model.feed_up)(image)[0]
    loss = optax.softmax_cross_entropy(predicted, label)
    np.testing.assert_allclose(metrics.amort_loss, loss.mean())


def test_backpropagation_learns_from_cross_entropy(float64):
    model = small_model(0, (CLASSES, 5, 6), "tanh", label_loss="cross_entropy")
    label, image = jnp.eye(CLASSES)[:BATCH], jnp.linspace(-1, 1, BATCH * 6).reshape(BATCH, 6)
    alphas = (1.0, 2.0)
    learning = learning_of(alphas, sgd(1.0), "bp")
    after, _ = train_step(
        make_state(model, learning),
        Batch(label, image),
        inference_of(alphas, sgd(0.0), 0, "bp"),
        learning,
    )

    def loss(model):
        predicted = jax.vmap(model.feed_up)(image)[0]
        return 2.0 * optax.softmax_cross_entropy(predicted, label).mean()

    expected = jax.grad(loss)(model)
    for before, now, gradient in zip(
        *(each.amortiser for each in (model, after.model, expected)), strict=True
    ):
        np.testing.assert_allclose(before.weight - now.weight, gradient.weight, rtol=1e-9)


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("use_bias", [False, True])
def test_mupc_is_its_scalings_and_skips(depth, use_bias, float64):
    sizes = [3, *[8] * (depth - 1), 7]
    model = small_model(0, sizes, "tanh", use_bias=use_bias, parameterisation="mupc")
    rng = np.random.default_rng(0)

    def by_hand(layers, state):
        for number, layer in enumerate(layers):
            weight, fan_in = np.asarray(getattr(layer, "layer", layer).weight), len(state)
            if number == 0:
                state = weight @ state / np.sqrt(fan_in)
            elif number == depth - 1:
                state = weight @ np.tanh(state) / fan_in
            else:
                state = state + weight @ np.tanh(state) / np.sqrt(fan_in * depth)
        return state

    label, image = rng.normal(size=3), rng.normal(size=7)
    generated, predicted = (
        model.feed_down(jnp.asarray(label))[-1],
        model.feed_up(jnp.asarray(image))[0],
    )
    np.testing.assert_allclose(generated, by_hand(model.generator, label), rtol=1e-12)
    np.testing.assert_allclose(predicted, by_hand(model.amortiser[::-1], image), rtol=1e-12)


@pytest.mark.slow
def test_mupc_keeps_activities_at_any_width_and_depth():
    """Standard normal weights, scaled, leave hidden activities of the same size."""
    sizes = []
    for width, depth in ((64, 4), (512, 4), (128, 32)):
        model = small_model(0, [10, *[width] * (depth - 1), 784], "relu", parameterisation="mupc")
        images = jax.random.normal(jax.random.PRNGKey(1), (50, 784))
        state = jax.vmap(model.feed_up)(images)[1]
        sizes.append(float(jnp.sqrt(jnp.mean(state**2))))
    assert 0.5 < min(sizes) < max(sizes) < 2.5


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["bpc", "hpc", "discpc"])
def test_depth_32_trains_under_mupc(algorithm, bpc_train, tmp_path):
    code, out, err, _ = bpc_train(
        *("experiment=mupc_depth32", "data=digits", "n_train_iters=150", "test_every=150"),
        *(f"algorithm={algorithm}", f"hydra.run.dir={tmp_path}/run"),
    )
    assert (code, err) == (0, "")
    assert "WARNING" not in out or algorithm != "bpc"
    assert float(out.split("test accuracy ")[1].split(" %")[0]) > 80


def test_mupc_says_what_it_needs(bpc_train, tmp_path):
    settings = ("data=digits", "model.width=16", "model.parameterisation=mupc", "n_train_iters=1")
    _, out, err, _ = bpc_train(*settings, f"hydra.run.dir={tmp_path}/a")
    assert "hardly learns at optim.param_lr=0.001" in out + err
    _, out, err, _ = bpc_train(*settings, "optim.param_lr=0.03", f"hydra.run.dir={tmp_path}/b")
    assert "hardly learns" not in out + err


def train_on(model, training, examples, indices):
    """Train on rows of examples; return the state after and the metrics."""
    chunk = Chunk(examples, indices, np.int32(len(indices)), training)
    state, metrics, _ = train_chunk(chunk, make_state(model, training.learning))
    return state, metrics


def training_of(seed=0, augmentations=(), rate=0.0, n_steps=0):
    optimiser = make_optimiser("adam", rate) if rate else sgd(0.0)
    inference = inference_of((1.0, 1.0), sgd(0.1), n_steps)
    learning = learning_of((1.0, 1.0), optimiser)
    return Training(inference, learning, augmentations, jax.random.PRNGKey(seed))


def test_noise_on_images_has_its_size_and_is_new_for_every_batch():
    """A generator of zero weights is wrong by the image itself."""
    noise, n = 0.25, 4000
    zero = jax.tree.map(
        jnp.zeros_like, small_model(0, [CLASSES, 9], "linear", PixelScale(0.2, 0.5))
    )
    images = np.random.default_rng(0).integers(0, 256, (n, 9), np.uint8)
    examples = Examples(jnp.asarray(images), jnp.zeros(n, jnp.uint8))
    indices = np.arange(n, dtype=np.int32)[None]
    losses = []
    for seed in (0, 1):
        still = jax.tree.map(jnp.array, zero)
        _, metrics = train_on(still, training_of(seed, (Noise(noise),)), examples, indices)
        losses.append(float(metrics.gen_loss[0]))
    clean = (images / 255 - 0.2) / 0.5
    expected = 0.5 * (np.mean(clean**2) + (noise / 0.5) ** 2)
    np.testing.assert_allclose(losses, expected, rtol=0.02)
    assert losses[0] != losses[1]


def test_shifts_are_whole_pixels_each_as_likely():
    shape, most = (4, 5, 1), 1
    image = np.random.default_rng(0).integers(1, 256, shape, np.uint8).astype(np.float32)
    many = jnp.asarray(np.tile(image, (900, 1, 1, 1)))
    moved = np.asarray(Shift(most)(many, jax.random.PRNGKey(0)))
    padded = np.pad(image, ((most, most), (most, most), (0, 0)))
    possible = {padded[y : y + 4, x : x + 5].tobytes(): 0 for y in range(3) for x in range(3)}
    for each in moved:
        possible[each.tobytes()] += 1  # a KeyError if it is none of these
    assert min(possible.values()) > 60
    moved = np.asarray(Shift(most, 0.5)(many, jax.random.PRNGKey(0)))
    still = np.mean((moved == many).all(axis=(1, 2, 3)))
    assert abs(still - (0.5 + 0.5 / 9)) < 0.06


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_augmentation_keeps_shapes_and_is_fixed_by_its_key(name):
    images = jnp.asarray(np.random.default_rng(0).random((6, 5, 4, 3), np.float32))
    keys = jax.random.PRNGKey(0), jax.random.PRNGKey(0), jax.random.PRNGKey(1)
    number = {"flip": 0.5}.get(name, 1)
    once, again, other = (AUGMENTATIONS[name](number)(images, key) for key in keys)
    assert once.shape == images.shape
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, other)


def test_whose_labels_are_known_stays_with_the_data():
    """With no label known, labels change nothing that is learnt."""
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (400, 9), np.uint8))
    indices = rng.integers(0, 400, (5, 8), np.int32)
    some, others = rng.integers(0, CLASSES, (2, 400))

    def train(labels, known):
        model = small_model(0, (CLASSES, 5, 9), "relu", PixelScale(0.2, 0.5))
        examples = Examples(images, jnp.asarray(labels, jnp.uint8), known)
        return jax.tree.leaves(
            train_on(model, training_of(rate=1e-2, n_steps=2), examples, indices)[0]
        )

    none = jnp.zeros(400, bool)
    for a, b in zip(train(some, none), train(others, none), strict=True):
        np.testing.assert_array_equal(a, b)
    pairs = zip(train(some, None), train(others, None), strict=True)
    assert not all(np.array_equal(a, b) for a, b in pairs)


def test_gradients_are_clipped_to_their_norm():
    free = sgd(1.0)
    limited = clipped(free, 0.5)
    params = {"a": jnp.zeros(2), "b": jnp.zeros(1)}
    gradients = {"a": jnp.asarray([3.0, 0.0]), "b": jnp.asarray([4.0])}
    moved, _ = limited.update(gradients, limited.init(params), params)
    np.testing.assert_allclose(moved["a"], [-0.3, 0], rtol=1e-6)
    np.testing.assert_allclose(moved["b"], [-0.4], rtol=1e-6)
    small = jax.tree.map(lambda leaf: leaf / 100, gradients)
    for optimiser in (limited, free):
        moved, _ = optimiser.update(small, optimiser.init(params), params)
        np.testing.assert_allclose(moved["b"], [-0.04], rtol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 1), st.integers(0, 2**32 - 1), st.integers(50, 300))
def test_the_fraction_of_labels_is_each_classs(fraction, seed, n):
    labels = np.random.default_rng(n).integers(0, 5, n).astype(np.uint8)
    known = labelled_examples(labels, fraction, seed)
    for label in range(5):
        n_known = known[labels == label].sum()
        assert n_known == max(round(fraction * (labels == label).sum()), fraction > 0)
    np.testing.assert_array_equal(known, labelled_examples(labels, fraction, seed))


def test_validation_images_are_the_last_of_the_training_set_and_are_not_trained_on():
    whole = load_digits()
    short = shortened(whole, 100, 50)
    np.testing.assert_array_equal(short.train_images, whole.train_images[:100])
    np.testing.assert_array_equal(short.test_images, whole.train_images[-50:])
    np.testing.assert_array_equal(short.test_labels, whole.train_labels[-50:])
    rest = shortened(whole, None, 50)
    np.testing.assert_array_equal(rest.train_images, whole.train_images[:-50])
    few = shortened(whole, 100, 0)
    np.testing.assert_array_equal(few.test_images, whole.test_images)
    for wanted in ((1437, 1), (None, 1437), (1438, 0)):
        with pytest.raises(UserError, match="ask for more than the 1437 training images"):
            shortened(whole, *wanted)


@pytest.mark.parametrize("algorithm", ["bp", pytest.param("bpc", marks=pytest.mark.slow)])
def test_images_without_a_label_can_be_dropped(algorithm, bpc_train, tmp_path):
    """Each seed trains on its own labelled images, as on a data set of these alone."""
    n_iters, batch_size, fraction, seed = 12, 8, 0.1, 1
    words = (f"algorithm={algorithm}", "data=digits", "model.width=6", "optim.param=sgd")
    code, _, err, _ = bpc_train(
        *(*words, "optim.param_lr=0.01", f"batch_size={batch_size}", f"n_train_iters={n_iters}"),
        *(f"data.label_fraction={fraction}", "data.unlabelled=drop", "n_seeds=2"),
        f"hydra.run.dir={tmp_path}/run",
    )
    assert (code, err) == (0, "")
    digits = load_digits()
    own = labelled_examples(digits.train_labels, fraction, seed)
    images, labels = digits.train_images[own], digits.train_labels[own]
    assert len(images) < 0.12 * len(digits.train_images)
    trained, _ = bpc_cli.load(f"{tmp_path}/run", seed=seed)
    model = bpc_cli.make_model(
        bpc_cli.Mlp(6), jax.random.PRNGKey(seed), 10, digits.image_shape, trained.pixel_scale
    )
    training = Training(
        inference_of((1.0, 1.0), sgd(0.5, batch_size), algorithm == "bpc", algorithm),
        learning_of((1.0, 1.0), sgd(0.01), algorithm),
        (),
        jax.random.PRNGKey(seed),
    )
    rows = batch_indices(seed, 1, n_iters, len(images), batch_size)
    state, _ = train_on(model, training, Examples(jnp.asarray(images), jnp.asarray(labels)), rows)
    for ours, theirs in zip(jax.tree.leaves(trained), jax.tree.leaves(state.model), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    assert summary_of(tmp_path / "run")["data"]["train_examples"] == len(images)
    epochs = [line["epoch"] for line in lines_of(tmp_path / "run") if line["seed"] == seed]
    assert epochs == [
        step * batch_size // (len(images) // batch_size * batch_size) for step in range(12)
    ]
