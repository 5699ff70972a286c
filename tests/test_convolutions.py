"""Convolutional networks against PyTorch's autograd (see reference/README.md), and by hand."""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import infer_each, inference_of, sgd

from bpc_cli.core.architectures import Cnn
from bpc_cli.core.clamping import Clamping
from bpc_cli.core.convolutions import make_conv, make_upsample
from bpc_cli.core.energy import EnergyWeights, energy, energy_terms
from bpc_cli.core.layers import Output
from bpc_cli.core.models import make_model

REFERENCE = Path(__file__).parent / "reference"
CASES = sorted(path.name for path in REFERENCE.glob("conv_*.npz"))


def channels_last(states: np.ndarray) -> np.ndarray:
    """Turn states of channels × height × width into such of height × width × channels."""
    return np.moveaxis(states, -3, -1)


def ours(name: str, weights: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Order a weight, bias or gradient of the reference's as our layers have it.

    Args:
        name: its key, which says whose it is.
        weights: it.
        shape: height, width and channels of the state that the dense layers flatten.
    """
    height, width, channels = shape
    if name.endswith(("W0", "bW0")):  # to the flattened state
        rows = weights.reshape(channels, height, width, -1)
        return np.moveaxis(rows, 0, 2).reshape(weights.shape)
    if name.endswith("V0") and weights.ndim == 2:  # from it
        columns = weights.reshape(-1, channels, height, width)
        return np.moveaxis(columns, 1, 3).reshape(weights.shape)
    if weights.ndim == 1:
        return weights
    return weights.transpose((2, 3, 0, 1) if "W" in name else (2, 3, 1, 0))


def weights_and_keys(model, prefix: str = ""):
    """List each weight and bias of a model beside its key in the reference."""
    found = []
    for direction, letter in ((model.generator, "W"), (model.amortiser, "V")):
        for i, layer in enumerate(direction):
            inner = layer.layer if isinstance(layer, Output) else layer
            found.append((inner.kernel if i else inner.weight, f"{prefix}{letter}{i}"))
            if inner.bias is not None:
                found.append((inner.bias, f"{prefix}b{letter}{i}"))
    return found


@pytest.fixture(params=CASES)
def case(request, float64):
    """A small model with the reference's weights, and the reference's figures."""
    figures = dict(np.load(REFERENCE / request.param))
    channels, height, width = map(int, figures["image_shape"])
    hidden_shape = figures["z0_init"].shape[1:]
    architecture = Cnn(
        tuple(map(int, figures["channels"])),
        str(figures["act"]),
        use_bias="bW0" in figures,
        pooling=str(figures["pool"]),
        generator_output=str(figures["image_act"]),
    )
    n_classes = figures["label"].shape[1]
    model = make_model(architecture, jax.random.PRNGKey(0), n_classes, (height, width, channels))
    shape = (*hidden_shape[1:], hidden_shape[0])
    keys = [key for _, key in weights_and_keys(model)]
    wanted = [jnp.asarray(ours(key, figures[key], shape)) for key in keys]
    model = eqx.tree_at(lambda m: [leaf for leaf, _ in weights_and_keys(m)], model, wanted)
    return model, figures, shape


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-12)


def weights_of(figures) -> EnergyWeights:
    return EnergyWeights(float(figures["alpha_f"]), float(figures["alpha_b"]))


def states_of(model, figures, when):
    hidden = [channels_last(figures[f"z{i}_{when}"]) for i in range(model.depth - 1)]
    states = [figures["label"], *hidden, channels_last(figures["image"])]
    return [jnp.asarray(state) for state in states]


def mean_energy(model, states, figures):
    return jax.vmap(lambda each: energy(model, each, weights_of(figures)))(states).mean()


def test_there_are_reference_files():
    assert len(CASES) == 3


def test_feedforward_passes(case):
    model, figures, _ = case
    generated = jax.vmap(lambda label: model.feed_down(label)[-1])(figures["label"])
    close(generated, channels_last(figures["gen_image"]))
    image = jnp.asarray(channels_last(figures["image"]))
    label, *activities = jax.vmap(model.feed_up)(image)
    close(label, figures["amort_label"])
    for i, activity in enumerate(activities):
        close(activity, channels_last(figures[f"z{i}_init"]))


def test_energy_terms(case):
    model, figures, _ = case
    terms = jax.vmap(lambda each: energy_terms(model, each, weights_of(figures)))(
        states_of(model, figures, "init")
    )
    for direction, name in zip(terms, ("generator_terms", "amortiser_terms"), strict=True):
        close(direction.mean(axis=0), figures[name])


def test_relaxation_and_its_gradients(case):
    model, figures, _ = case
    label, *activities, image = states_of(model, figures, "init")
    energy_of = jax.jit(lambda z: mean_energy(model, [label, *z, image], figures))
    for i, gradient in enumerate(jax.jit(jax.grad(energy_of))(activities)):
        close(gradient, channels_last(figures[f"z{i}_grad"]))
    optimiser = sgd(float(figures["lr"]), batch=len(image))
    inference = inference_of(weights_of(figures), optimiser, int(figures["T"]))
    inferred = infer_each(model, Clamping(label, image), inference)
    for i, activity in enumerate(inferred.states.activities):
        close(activity, channels_last(figures[f"z{i}_final"]))
    close(inferred.relaxation.energies.mean(axis=0), figures["energy_trace"])


def test_parameter_gradients(case):
    model, figures, shape = case
    states = states_of(model, figures, "final")
    gradients = eqx.filter_jit(eqx.filter_grad(lambda m: mean_energy(m, states, figures)))(model)
    compared = weights_and_keys(gradients, "grad_")
    for gradient, key in compared:
        close(gradient, ours(key.removeprefix("grad_"), figures[key], shape))
    assert len(compared) == sum(key.startswith("grad_") for key in figures)


def convolved_by_hand(state, kernel, bias):
    """Compute a 3×3 cross-correlation, padded by zeros, pixel by pixel."""
    height, width, _ = state.shape
    padded = np.pad(state, ((1, 1), (1, 1), (0, 0)))
    return np.array(
        [
            [np.tensordot(padded[y : y + 3, x : x + 3], kernel, 3) + bias for x in range(width)]
            for y in range(height)
        ]
    )


@pytest.mark.parametrize("pooling", ["max", "avg", "stride", None])
def test_a_convolution_is_that_by_hand(pooling, float64):
    halved = (4, 6, 2) if pooling is None else (2, 3, 2)
    layer = make_conv(jax.random.PRNGKey(0), ((4, 6, 3), halved), jnp.tanh, pooling)
    state = np.asarray(jax.random.normal(jax.random.PRNGKey(1), (4, 6, 3)))
    convolved = convolved_by_hand(np.tanh(state), np.asarray(layer.kernel), np.asarray(layer.bias))
    if pooling == "stride":
        convolved = convolved[::2, ::2]
    elif pooling is not None:
        blocks = convolved.reshape(2, 2, 3, 2, 2)
        convolved = blocks.max(axis=(1, 3)) if pooling == "max" else blocks.mean(axis=(1, 3))
    close(layer(jnp.asarray(state)), convolved)


@pytest.mark.parametrize("upsampling", ["transpose", "resize", None])
def test_upsampling_is_that_by_hand(upsampling, float64):
    doubled = (3, 4, 2) if upsampling is None else (6, 8, 2)
    layer = make_upsample(jax.random.PRNGKey(0), ((3, 4, 5), doubled), jnp.tanh, upsampling)
    state = np.asarray(jax.random.normal(jax.random.PRNGKey(1), (3, 4, 5)))
    read, kernel, bias = np.tanh(state), np.asarray(layer.kernel), np.asarray(layer.bias)
    if upsampling == "transpose":
        expected = np.zeros(doubled) + bias
        for y, x, i, j in np.ndindex(6, 8, 3, 4):
            row, column = y - 2 * i + 1, x - 2 * j + 1
            if 0 <= row < 4 and 0 <= column < 4:
                expected[y, x] += read[i, j] @ kernel[row, column]
    else:
        if upsampling == "resize":
            read = np.kron(read, np.ones((2, 2, 1)))
        expected = convolved_by_hand(read, kernel, bias)
    close(layer(jnp.asarray(state)), expected)


architectures = st.builds(
    Cnn,
    channels=st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple),
    act_fn=st.sampled_from(["relu", "tanh", "leaky_relu", "gelu"]),
    use_bias=st.booleans(),
    pooling=st.sampled_from(["max", "avg", "stride"]),
    upsampling=st.sampled_from(["transpose", "resize"]),
    halve_every=st.integers(1, 3),
    generator_output=st.sampled_from(["identity", "tanh", "sigmoid"]),
    activation_at_ends=st.booleans(),
)


@settings(max_examples=5, deadline=None)
@given(architecture=architectures)
def test_relaxing_at_a_small_rate_lowers_the_energy(architecture):
    model = make_model(architecture, jax.random.PRNGKey(0), 3, (8, 8, 2))
    image = jax.random.normal(jax.random.PRNGKey(1), (2, 8, 8, 2))
    label = jnp.eye(3)[:2]
    inference = inference_of((0.5, 1.0), sgd(1e-3), 5)
    energies = infer_each(model, Clamping(label, image), inference).relaxation.energies
    assert (np.diff(np.asarray(energies), axis=1) <= 1e-5 * np.asarray(energies)[:, :1]).all()


def test_sizes_that_do_not_halve_are_explained():
    with pytest.raises(
        ValueError, match=r"28×28 cannot be halved 3 times.*multiples of 8, as 24 and"
    ):
        Cnn((4, 4, 4)).state_shapes(10, (28, 28, 1))
    assert Cnn((4, 4, 4), halve_every=2).state_shapes(10, (28, 28, 1)) == [
        *((10,), (14, 14, 4), (14, 14, 4), (28, 28, 4)),
        (28, 28, 1),
    ]
