"""Choices of training: cross-entropy, muPC, noise, clipping, unlabelled and validation images."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from by_hand import ByHand
from hypothesis import given, settings
from hypothesis import strategies as st

from bpc_cli.core.learning import make_state, train_chunk, train_step
from bpc_cli.core.models import make_networks
from bpc_cli.core.optimisers import make_optimiser
from bpc_cli.core.rules import make_rules
from bpc_cli.data.datasets import labelled_examples, load_digits, shortened
from bpc_cli.data.pixels import pixel_scale, shifted
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
    one = make_optimiser("sgd", 1.0)
    state = make_state(jax.random.PRNGKey(0), (CLASSES, *[5] * (depth - 1), 6), "tanh", one)
    rng = np.random.default_rng(0)
    label, image = jnp.eye(CLASSES)[:BATCH], jnp.asarray(rng.normal(size=(BATCH, 6)))
    sgd = make_optimiser("sgd", RATE)
    rules = make_rules(
        *(ALPHA_F, ALPHA_B, sgd, one, 5), reduction="sum", label_loss="cross_entropy"
    )
    after, metrics = train_step(state, image, label, rules)
    hand = WithCrossEntropy(state.generator, state.amortiser, label, image)
    relaxed = hand.relaxed(hand.amortised(), ALPHA_F, ALPHA_B, 5, RATE)
    np.testing.assert_allclose(metrics.energy_after, hand.energy(relaxed, ALPHA_F, ALPHA_B))
    expected = hand.gradients(relaxed, ALPHA_F, ALPHA_B)
    for name, gradients in zip(("generator", "amortiser"), expected, strict=True):
        layers = zip(getattr(state, name).layers, getattr(after, name).layers, strict=True)
        for (before, now), gradient in zip(layers, gradients, strict=True):
            np.testing.assert_allclose(before.weight - now.weight, gradient, rtol=1e-7, atol=1e-12)
    named = optax.softmax_cross_entropy(state.amortiser(image), label)
    np.testing.assert_allclose(metrics.amort_loss, named.mean())


def test_backpropagation_learns_from_cross_entropy(float64):
    one = make_optimiser("sgd", 1.0)
    state = make_state(jax.random.PRNGKey(0), (CLASSES, 5, 6), "tanh", one)
    label, image = jnp.eye(CLASSES)[:BATCH], jnp.linspace(-1, 1, BATCH * 6).reshape(BATCH, 6)
    rules = make_rules(
        *(1.0, 2.0, make_optimiser("sgd", 0.0), one, 0),
        algorithm="bp",
        label_loss="cross_entropy",
    )
    after, _ = train_step(state, image, label, rules)
    expected = jax.grad(
        lambda network: 2.0 * optax.softmax_cross_entropy(network(image), label).mean()
    )(state.amortiser)
    for before, now, gradient in zip(
        *(network.layers for network in (state.amortiser, after.amortiser, expected)), strict=True
    ):
        np.testing.assert_allclose(before.weight - now.weight, gradient.weight, rtol=1e-9)


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("use_bias", [False, True])
def test_mupc_is_its_scalings_and_skips(depth, use_bias, float64):
    sizes = [3, *[8] * (depth - 1), 7]
    generator, amortiser = make_networks(
        jax.random.PRNGKey(0), sizes, "tanh", use_bias=use_bias, parameterisation="mupc"
    )
    rng = np.random.default_rng(0)

    def by_hand(layers, state):
        for number, layer in enumerate(layers):
            fan_in = state.shape[1]
            if number == 0:
                state = state @ np.asarray(layer.weight).T / np.sqrt(fan_in)
            elif number == depth - 1:
                state = np.tanh(state) @ np.asarray(layer.weight).T / fan_in
            else:
                product = np.tanh(state) @ np.asarray(layer.weight).T
                state = state + product / np.sqrt(fan_in * depth)
        return state

    label, image = rng.normal(size=(2, 3)), rng.normal(size=(2, 7))
    np.testing.assert_allclose(generator(label), by_hand(generator.layers, label), rtol=1e-12)
    np.testing.assert_allclose(amortiser(image), by_hand(amortiser.layers[::-1], image), rtol=1e-12)


@pytest.mark.slow
def test_mupc_keeps_activities_at_any_width_and_depth():
    """Standard normal weights, scaled, leave hidden activities of the same size."""
    sizes = []
    for width, depth in ((64, 4), (512, 4), (128, 32)):
        _, amortiser = make_networks(
            *(jax.random.PRNGKey(0), [10, *[width] * (depth - 1), 784], "relu"),
            parameterisation="mupc",
        )
        state = jax.random.normal(jax.random.PRNGKey(1), (50, 784))
        for index in reversed(range(1, depth)):
            state = amortiser.predict(index, state)
        sizes.append(float(jnp.sqrt(jnp.mean(state**2))))
    assert 0.5 < min(sizes) < max(sizes) < 2.5


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["bpc", "hpc", "discpc"])
def test_depth_32_trains_under_mupc(algorithm, bpc_train, tmp_path):
    code, out, err, _ = bpc_train(
        *("data=digits", "model.depth=32", "model.width=64", "model.parameterisation=mupc"),
        *("n_train_iters=150", "test_every=150", "optim.param_lr=0.03", "batch_size=128"),
        *("inference.reduction=sum", "optim.activity_lr=0.1", "forward_energy_weight=1e-3"),
        *(f"algorithm={algorithm}", f"hydra.run.dir={tmp_path}/run"),
    )
    assert (code, err) == (0, "")
    assert float(out.split("test accuracy ")[1].split(" %")[0]) > 80


def chunk_of(rules, state, n_steps=1, batch=400):
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (batch, 9), np.uint8))
    indices = np.tile(np.arange(batch, dtype=np.int32), (n_steps, 1))
    batches = (images, jnp.zeros(batch, jnp.uint8), indices, np.int32(n_steps))
    return images, train_chunk((*batches, pixel_scale(0.2, 0.5), rules), state)


def test_noise_on_images_has_its_size_and_is_new_for_every_batch():
    """A generator of zero weights is wrong by the image itself."""
    still = make_optimiser("sgd", 0.0)
    networks = make_networks(jax.random.PRNGKey(0), [CLASSES, 9], "linear")
    from bpc_cli.core.learning import start_from

    zero = jax.tree.map(jnp.zeros_like, networks)
    noise = 0.25
    rules = make_rules(1.0, 1.0, still, still, 0, input_noise=noise)
    images, (_, metrics, _) = chunk_of(rules, start_from(*zero, still), batch=4000)
    clean = (np.asarray(images) / 255 - 0.2) / 0.5
    expected = 0.5 * (np.mean(clean**2) + (noise / 0.5) ** 2)
    np.testing.assert_allclose(metrics.gen_loss[0], expected, rtol=0.02)
    zero = jax.tree.map(jnp.zeros_like, networks)
    other = make_rules(1.0, 1.0, still, still, 0, input_noise=noise, seed=1)
    _, (_, again, _) = chunk_of(other, start_from(*zero, still), batch=4000)
    assert again.gen_loss[0] != metrics.gen_loss[0]


def test_shifts_are_whole_pixels_each_as_likely():
    shape, most = (4, 5, 1), 1
    image = np.random.default_rng(0).integers(1, 256, shape, np.uint8)
    many = jnp.asarray(np.tile(image.ravel(), (900, 1)))
    moved = np.asarray(shifted(many, shape, most, 1.0, jax.random.PRNGKey(0)))
    padded = np.pad(image, ((most, most), (most, most), (0, 0)))
    possible = {padded[y : y + 4, x : x + 5].tobytes(): 0 for y in range(3) for x in range(3)}
    for each in moved:
        possible[each.tobytes()] += 1  # a KeyError if it is none of these
    assert min(possible.values()) > 60
    moved = np.asarray(shifted(many, shape, most, 0.5, jax.random.PRNGKey(0)))
    assert abs(np.mean((moved == many).all(axis=1)) - (0.5 + 0.5 / 9)) < 0.06
    with pytest.raises(ValueError, match="takes their image_shape"):
        make_rules(1.0, 1.0, make_optimiser("sgd", 0.1), make_optimiser("sgd", 0.1), 1, shift=1)


def test_which_labels_are_known_is_the_rules():
    """With no label known, labels change nothing that is learnt."""
    adam = make_optimiser("adam", 1e-2)
    none = np.zeros(400, bool)
    rules = make_rules(1.0, 1.0, make_optimiser("sgd", 0.1), adam, 2, labelled=none)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (400, 9), np.uint8))
    indices = rng.integers(0, 400, (5, 8), np.int32)

    def train(labels, rules):
        state = make_state(jax.random.PRNGKey(0), (CLASSES, 5, 9), "relu", adam)
        batches = (images, jnp.asarray(labels, jnp.uint8), indices, np.int32(5))
        return jax.tree.leaves(train_chunk((*batches, pixel_scale(0.2, 0.5), rules), state)[0])

    some, others = rng.integers(0, CLASSES, (2, 400))
    for a, b in zip(train(some, rules), train(others, rules), strict=True):
        np.testing.assert_array_equal(a, b)
    all_known = make_rules(1.0, 1.0, make_optimiser("sgd", 0.1), adam, 2)
    pairs = zip(train(some, all_known), train(others, all_known), strict=True)
    assert not all(np.array_equal(a, b) for a, b in pairs)


def test_gradients_are_clipped_to_their_norm():
    clipped, free = make_optimiser("sgd", 1.0, clip=0.5), make_optimiser("sgd", 1.0)
    params = {"a": jnp.zeros(2), "b": jnp.zeros(1)}
    gradients = {"a": jnp.asarray([3.0, 0.0]), "b": jnp.asarray([4.0])}
    moved, _ = clipped.update(gradients, clipped.init(params), params)
    np.testing.assert_allclose(moved["a"], [-0.3, 0], rtol=1e-6)
    np.testing.assert_allclose(moved["b"], [-0.4], rtol=1e-6)
    small = jax.tree.map(lambda leaf: leaf / 100, gradients)
    for optimiser in (clipped, free):
        moved, _ = optimiser.update(small, optimiser.init(params), params)
        np.testing.assert_allclose(moved["b"], [-0.04], rtol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 1), st.integers(0, 2**32 - 1), st.integers(50, 300))
def test_the_share_of_labels_is_each_classs(fraction, seed, n):
    labels = np.random.default_rng(n).integers(0, 5, n).astype(np.uint8)
    known = labelled_examples(labels, fraction, seed)
    for label in range(5):
        share = known[labels == label].sum()
        assert share == max(round(fraction * (labels == label).sum()), fraction > 0)
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
