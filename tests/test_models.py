"""Models and layers: order, shapes, refusals, and what a loaded model is asked in a notebook."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import inference_of, sgd, small_model

from bpc_cli.core.architectures import Cnn, Mlp
from bpc_cli.core.clamping import Clamping
from bpc_cli.core.energy import EnergyWeights, energy
from bpc_cli.core.inference import infer
from bpc_cli.core.layers import Residual, activation, make_dense
from bpc_cli.core.models import Model, make_model
from bpc_cli.data.pixels import PixelScale, denormalise, normalise, to_unit_pixels
from bpc_cli.options.declare import option_fields
from bpc_cli.options.names import ACTIVATIONS
from bpc_cli.options.schema import TrainConfig

SIZES = [3, 5, 6, 7]
COLOUR_SCALE = PixelScale((0.1, 0.5, 0.2), (0.3, 2.0, 0.7))
SCALE = PixelScale(0.1307, 0.3081)


def test_layers_are_stored_label_side_first_in_both_directions():
    model = small_model(0, SIZES, "relu")
    assert [layer.weight.shape for layer in model.generator] == [(5, 3), (6, 5), (7, 6)]
    assert [layer.weight.shape for layer in model.amortiser] == [(3, 5), (5, 6), (6, 7)]
    assert model.state_shapes == [(3,), (5,), (6,), (7,)]
    assert (model.depth, model.n_classes) == (3, 3)


def test_passes_apply_the_activation_before_all_but_the_first_map():
    model = small_model(1, SIZES, "tanh", use_bias=True)
    label = jax.random.normal(jax.random.PRNGKey(2), (3,))
    image = jax.random.normal(jax.random.PRNGKey(3), (7,))

    def by_hand(layers, state):
        states = []
        for i, layer in enumerate(layers):
            source = np.tanh(state) if i else np.asarray(state)
            state = np.asarray(layer.weight) @ source + np.asarray(layer.bias)
            states.append(state)
        return states

    for ours, theirs in (
        (model.feed_down(label), by_hand(model.generator, label)),
        (model.feed_up(image), by_hand(model.amortiser[::-1], image)[::-1]),
    ):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "architecture", [Mlp(depth=0), Mlp(width=0), Mlp(width=(3,), depth=3), Mlp(width=(3, 4))]
)
def test_sizes_that_cannot_be_are_rejected(architecture):
    with pytest.raises(ValueError, match="must be at least 1, and there is a width for each"):
        make_model(architecture, jax.random.PRNGKey(0), 10, (28, 28, 1))


def test_directions_that_do_not_meet_are_rejected():
    model = small_model(0, SIZES, "relu")
    with pytest.raises(ValueError, match="must predict each other's states"):
        Model(model.generator, model.amortiser[::-1], model.image_shape)
    with pytest.raises(ValueError, match="must predict each other's states"):
        Model(model.generator[:-1], model.amortiser, model.image_shape)


def test_a_skip_connection_needs_one_shape():
    layer = make_dense(jax.random.PRNGKey(0), (4,), (4,), activation("tanh"))
    state = jnp.arange(4.0)
    np.testing.assert_allclose(Residual(layer)(state), state + layer(state))
    with pytest.raises(ValueError, match="needs states of one shape, not"):
        Residual(make_dense(jax.random.PRNGKey(0), (4,), (5,)))


def test_a_weight_that_does_not_fit_its_layer_is_rejected():
    layer = make_dense(jax.random.PRNGKey(0), (4,), (5,))
    with pytest.raises(ValueError, match=r"of shape \(4, 5\) must have shape \(5, 4\)"):
        type(layer)(weight=layer.weight.T, bias=None, in_shape=(4,), out_shape=(5,))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"act_fn": "rleu"}, "unknown act_fn 'rleu'; known: linear, relu"),
        ({"act_fn": "relu", "parameterisation": "x"}, "unknown parameterisation 'x'"),
        ({"act_fn": "relu", "label_loss": "x"}, "unknown label_loss 'x'; known: squared"),
    ],
)
def test_an_unknown_name_is_rejected_with_the_known_ones(how, message):
    with pytest.raises(ValueError, match=message):
        small_model(0, SIZES, **how)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_keep_shape_and_are_finite(name):
    activity = jnp.linspace(-3, 3, 12).reshape(3, 4)
    activated = activation(name)(activity)
    assert activated.shape == activity.shape
    assert bool(jnp.isfinite(activated).all())


@pytest.mark.parametrize(
    "function",
    [jnp.sin, jax.jit(jnp.sin), lambda x: jnp.sin(x), functools.partial(jnp.multiply, 2.0)],
)
def test_whatever_can_be_called_is_an_activation(function):
    model = small_model(0, SIZES, function)
    image = jnp.linspace(-1, 1, 7)
    hidden = model.amortiser[2](image)
    expected = model.amortiser[1].weight @ function(hidden)
    np.testing.assert_allclose(eqx.filter_jit(model.feed_up)(image)[1], expected, rtol=1e-5)


def test_an_activation_that_cannot_be_compiled_in_is_rejected():
    with pytest.raises(ValueError, match="an activation must be hashable: wrap PReLU in a"):
        activation(eqx.nn.PReLU())


def test_many_samples_where_one_is_wanted_are_rejected():
    model = small_model(0, SIZES, "relu")
    states = [jnp.zeros((2, size)) for size in SIZES]
    with pytest.raises(ValueError, match=r"of shape \(7,\) is wanted, not \(2, 7\): jax.vmap"):
        model.feed_up(states[-1])
    with pytest.raises(ValueError, match="states of one sample are wanted"):
        energy(model, states, EnergyWeights())
    with pytest.raises(ValueError, match=r"image must be of shape \(7\), not \(2, 7\)"):
        infer(model, Clamping(jnp.zeros(3), states[-1]), inference_of((1.0, 1.0), sgd(0.1), 1))


def test_the_config_offers_exactly_the_activations_that_there_are():
    fields = dict(option_fields(TrainConfig))
    assert fields["model.act_fn"].metadata["choices"] == tuple(ACTIVATIONS)


def some_images(n, shape=(3, 3, 1)):
    return np.random.default_rng(0).integers(0, 256, (n, *shape), np.uint8)


def model_of_images(shape=(3, 3, 1)):
    return make_model(Mlp(5), jax.random.PRNGKey(0), 4, shape, SCALE)


@pytest.mark.parametrize("shape", [(3, 3, 1), (2, 3, 3)])
def test_classifying_is_the_amortisers_pass_of_pixels_of_either_kind(shape):
    model, images = model_of_images(shape), some_images(23, shape)
    states = normalise(to_unit_pixels(jnp.asarray(images.reshape(23, -1))), SCALE)
    expected = [int(jnp.argmax(model.feed_up(state)[0])) for state in states]
    for form in (images, images.reshape(23, -1), images / 255, (images / 255).astype(np.float32)):
        predicted = model.classify(form)
        assert isinstance(predicted, np.ndarray)
        assert predicted.tolist() == expected
    with pytest.raises(ValueError, match="must be rows of"):
        model.classify(images[0])
    with pytest.raises(ValueError, match="must be rows of"):
        model.classify(images[:, :1])


def test_generating_is_the_generators_pass_of_one_hot_labels():
    model = model_of_images()
    images = model.generate([2, 0, 2], clip=False)
    assert images.shape == (3, 3, 3, 1)
    for number, image in zip([2, 0, 2], images, strict=True):
        expected = denormalise(model.feed_down(jnp.eye(4)[number])[-1], SCALE)
        np.testing.assert_allclose(image.ravel(), expected, rtol=1e-5)
    louder = eqx.tree_at(lambda m: m.generator[-1].weight, model, replace_fn=lambda w: 20 * w)
    assert louder.generate([0], clip=False).min() < 0
    np.testing.assert_array_equal(
        louder.generate([0]), np.clip(louder.generate([0], clip=False), 0, 1)
    )
    for classes in ([4], [-1], np.array([0.5]), np.array(3)):
        with pytest.raises(ValueError, match="numbers from 0 to 3"):
            model.generate(classes)


def test_normalising_is_undone():
    pixels = jnp.arange(256, dtype=jnp.uint8)
    there = normalise(to_unit_pixels(pixels), SCALE)
    np.testing.assert_allclose(denormalise(there, SCALE), np.arange(256) / 255, atol=1e-6)


@pytest.mark.parametrize("architecture", [Mlp(width=4), Cnn(channels=(2,))], ids=["mlp", "cnn"])
def test_each_channel_has_its_own_scale(architecture):
    """Whether a model's images are flattened or not; black is -mean/std in every channel."""
    model = make_model(architecture, jax.random.PRNGKey(0), 3, (4, 6, 3), COLOUR_SCALE)
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), np.uint8)
    states = np.asarray(model.to_states(jnp.asarray(images.reshape(5, -1))))
    for channel, (mean, std) in enumerate(zip(*COLOUR_SCALE, strict=True)):
        np.testing.assert_allclose(
            states.reshape(images.shape)[..., channel],
            (images[..., channel] / 255 - mean) / std,
            rtol=1e-5,
            atol=1e-6,
        )
    back = np.asarray(model.to_images(jnp.asarray(states)))
    np.testing.assert_allclose(back, images.reshape(5, -1) / 255, atol=1e-6)
