"""Generator and amortiser: the two feedforward networks of a bidirectional predictive coder.

One convention for the order of layers holds everywhere in this package: **index 0 is next to
the label**. With `states = [label, z_0, ..., z_{depth-2}, image]`,

- the generator's layer `i` predicts `states[i + 1]` from `states[i]` (top-down),
- the amortiser's layer `i` predicts `states[i]` from `states[i + 1]` (bottom-up), so a
  bottom-up pass applies the amortiser's layers in reverse.

The activation comes *before* each linear map, except before a network's first.
"""

import abc
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "linear": lambda activity: activity,
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "hard_tanh": jax.nn.hard_tanh,
    "leaky_relu": jax.nn.leaky_relu,
    "gelu": jax.nn.gelu,
    "selu": jax.nn.selu,
    "silu": jax.nn.silu,
}


class Network(eqx.Module):
    """Linear layers in label-to-image order, with an activation before all but the first applied.

    Attributes:
        layers: `depth` linear layers; `layers[0]` touches the label, `layers[-1]` the image.
        act_fn: the activation's name, a key of `ACTIVATIONS`.
    """

    layers: tuple[eqx.nn.Linear, ...]
    act_fn: str = eqx.field(static=True)

    @property
    def depth(self) -> int:
        return len(self.layers)

    @abc.abstractmethod
    def predict(
        self, index: int, source: Float[Array, "batch source"]
    ) -> Float[Array, "batch target"]:
        """Predict one layer of states from its neighbour on the side that this network reads."""

    def _apply(self, index: int, source: Array, *, activate: bool) -> Array:
        layer = self.layers[index]
        activity = ACTIVATIONS[self.act_fn](source) if activate else source
        prediction = activity @ layer.weight.T
        return prediction if layer.bias is None else prediction + layer.bias


class Generator(Network):
    """The top-down network: label → image (W in the paper's formulas)."""

    def predict(
        self, index: int, source: Float[Array, "batch source"]
    ) -> Float[Array, "batch target"]:
        """Predict `states[index + 1]` from `states[index]`: W_i φ(source); no φ on the label."""
        return self._apply(index, source, activate=index > 0)

    def __call__(self, label: Float[Array, "batch label"]) -> Float[Array, "batch image"]:
        """Draw an image for each label by one top-down pass; pixels are in normalised units."""
        state = label
        for index in range(self.depth):
            state = self.predict(index, state)
        return state


class Amortiser(Network):
    """The bottom-up network: image → label (V in the paper's formulas)."""

    def predict(
        self, index: int, source: Float[Array, "batch source"]
    ) -> Float[Array, "batch target"]:
        """Predict `states[index]` from `states[index + 1]`: V_i φ(source); no φ on the image."""
        return self._apply(index, source, activate=index < self.depth - 1)

    def __call__(self, image: Float[Array, "batch image"]) -> Float[Array, "batch label"]:
        """Name each image by one bottom-up pass; the largest entry is the predicted class."""
        state = image
        for index in reversed(range(self.depth)):
            state = self.predict(index, state)
        return state


def layer_sizes(label_size: int, width: int, depth: int, image_size: int) -> list[int]:
    """List the sizes of all states, label first: `[label, width, ..., width, image]`.

    Raises:
        ValueError: if `depth` or a size is below 1.
    """
    if depth < 1 or min(label_size, width, image_size) < 1:
        raise ValueError("depth, width, label_size and image_size must be at least 1")
    return [label_size, *[width] * (depth - 1), image_size]


def make_generator(
    key: PRNGKeyArray, sizes: Sequence[int], act_fn: str, *, use_bias: bool = False
) -> Generator:
    """Build a generator for states of the given sizes (label first), one subkey per layer.

    Initial weights are `equinox.nn.Linear`'s own: uniform in ±1/√fan_in.

    Raises:
        ValueError: if `act_fn` is not a key of `ACTIVATIONS`.
    """
    _check_activation(act_fn)
    keys = jax.random.split(key, len(sizes) - 1)
    layers = [
        eqx.nn.Linear(above, below, use_bias=use_bias, key=layer_key)
        for above, below, layer_key in zip(sizes[:-1], sizes[1:], keys, strict=True)
    ]
    return Generator(tuple(layers), act_fn)


def make_amortiser(
    key: PRNGKeyArray, sizes: Sequence[int], act_fn: str, *, use_bias: bool = False
) -> Amortiser:
    """Build an amortiser for states of the given sizes (label first), one subkey per layer.

    Subkeys go to the layers in the order in which they are applied, image side first, as in
    the published example. Initial weights are `equinox.nn.Linear`'s own.

    Raises:
        ValueError: if `act_fn` is not a key of `ACTIVATIONS`.
    """
    _check_activation(act_fn)
    keys = jax.random.split(key, len(sizes) - 1)[::-1]
    layers = [
        eqx.nn.Linear(below, above, use_bias=use_bias, key=layer_key)
        for above, below, layer_key in zip(sizes[:-1], sizes[1:], keys, strict=True)
    ]
    return Amortiser(tuple(layers), act_fn)


def make_networks(
    key: PRNGKeyArray, sizes: Sequence[int], act_fn: str, *, use_bias: bool = False
) -> tuple[Generator, Amortiser]:
    """Build both networks from `gen_key, amort_key = split(key)`.

    With `key = jax.random.PRNGKey(0)` these are the published example's initial weights.

    Raises:
        ValueError: if `act_fn` is not a key of `ACTIVATIONS`.
    """
    generator_key, amortiser_key = jax.random.split(key)
    return (
        make_generator(generator_key, sizes, act_fn, use_bias=use_bias),
        make_amortiser(amortiser_key, sizes, act_fn, use_bias=use_bias),
    )


def _check_activation(act_fn: str) -> None:
    if act_fn not in ACTIVATIONS:
        raise ValueError(f"unknown act_fn '{act_fn}'; known: {', '.join(ACTIVATIONS)}")
