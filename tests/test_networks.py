"""Networks: order of layers, shapes, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bpc_cli.core.models import ACTIVATIONS, layer_sizes, make_networks
from bpc_cli.options.declare import option_fields
from bpc_cli.options.schema import TrainConfig

SIZES = [3, 5, 6, 7]


def test_layers_are_stored_label_side_first_in_both_networks():
    generator, amortiser = make_networks(jax.random.PRNGKey(0), SIZES, "relu")
    assert [layer.weight.shape for layer in generator.layers] == [(5, 3), (6, 5), (7, 6)]
    assert [layer.weight.shape for layer in amortiser.layers] == [(3, 5), (5, 6), (6, 7)]


def test_passes_apply_the_activation_before_all_but_the_first_map():
    generator, amortiser = make_networks(jax.random.PRNGKey(1), SIZES, "tanh", use_bias=True)
    label = jax.random.normal(jax.random.PRNGKey(2), (4, 3))
    image = jax.random.normal(jax.random.PRNGKey(3), (4, 7))

    def by_hand(layers, state):
        for i, layer in enumerate(layers):
            source = np.tanh(state) if i else np.asarray(state)
            state = source @ np.asarray(layer.weight).T + np.asarray(layer.bias)
        return state

    np.testing.assert_allclose(generator(label), by_hand(generator.layers, label), rtol=1e-5)
    np.testing.assert_allclose(amortiser(image), by_hand(amortiser.layers[::-1], image), rtol=1e-5)


def test_layer_sizes():
    assert layer_sizes(10, 256, 3, 784) == [10, 256, 256, 784]
    assert layer_sizes(10, 256, 1, 784) == [10, 784]
    with pytest.raises(ValueError, match="at least 1"):
        layer_sizes(10, 256, 0, 784)


def test_an_unknown_activation_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown act_fn 'rleu'; known: linear, relu"):
        make_networks(jax.random.PRNGKey(0), SIZES, "rleu")


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_keep_shape_and_are_finite(name):
    activity = jnp.linspace(-3, 3, 12).reshape(3, 4)
    activated = ACTIVATIONS[name](activity)
    assert activated.shape == activity.shape
    assert bool(jnp.isfinite(activated).all())


def test_the_config_offers_exactly_the_activations_that_there_are():
    fields = dict(option_fields(TrainConfig))
    assert fields["model.act_fn"].metadata["choices"] == tuple(ACTIVATIONS)
