"""Generator and amortiser: the two feedforward networks of a bidirectional predictive coder.

One convention for the order of layers holds everywhere in this package: **index 0 is next to
the label**. With `states = [label, z_0, ..., z_{depth-2}, image]`,

- the generator's layer `i` predicts `states[i + 1]` from `states[i]` (top-down),
- the amortiser's layer `i` predicts `states[i]` from `states[i + 1]` (bottom-up), so a
  bottom-up pass applies the amortiser's layers in reverse.

The activation comes *before* each linear map, except before a network's first.

Under the parameterisation "mupc" each product has a scale of its own, and layers between hidden
ones have skip connections (Innocenti, Achour & Buckley 2025, μPC, arXiv 2505.13124), here for both
networks: weights are standard normal; the first layer applied is scaled by 1/√fan_in, those
between hidden layers by 1/√(fan_in · depth), and the last by 1/fan_in.
"""

import abc
import math
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
PARAMETERISATIONS = ("standard", "mupc")


class Network(eqx.Module):
    """Linear layers in label-to-image order, with an activation before all but the first applied.

    Attributes:
        layers: `depth` linear layers; `layers[0]` touches the label, `layers[-1]` the image.
        act_fn: the activation's name, a key of `ACTIVATIONS`.
        parameterisation: an entry of `PARAMETERISATIONS`.
    """

    layers: tuple[eqx.nn.Linear, ...]
    act_fn: str = eqx.field(static=True)
    parameterisation: str = eqx.field(static=True, default="standard")

    @property
    def depth(self) -> int:
        return len(self.layers)

    @abc.abstractmethod
    def predict(
        self, index: int, source: Float[Array, "batch source"]
    ) -> Float[Array, "batch target"]:
        """Predict one layer of states from its neighbour on the side that this network reads."""

    def _apply(self, index: int, source: Array, *, is_first: bool, is_last: bool) -> Array:
        layer = self.layers[index]
        activity = source if is_first else ACTIVATIONS[self.act_fn](source)
        prediction = activity @ layer.weight.T
        if self.parameterisation == "mupc":
            prediction = prediction * self._scale(source.shape[-1], is_first, is_last)
            if not is_first and not is_last:
                prediction = prediction + source
        return prediction if layer.bias is None else prediction + layer.bias

    def _scale(self, fan_in: int, is_first: bool, is_last: bool) -> float:
        if is_first:
            return 1 / math.sqrt(fan_in)
        return 1 / fan_in if is_last else 1 / math.sqrt(fan_in * self.depth)


class Generator(Network):
    """The top-down network: label → image (W in the paper's formulas)."""

    def predict(
        self, index: int, source: Float[Array, "batch source"]
    ) -> Float[Array, "batch target"]:
        """Predict `states[index + 1]` from `states[index]`: W_i φ(source); no φ on the label."""
        return self._apply(index, source, is_first=index == 0, is_last=index == self.depth - 1)

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
        return self._apply(index, source, is_first=index == self.depth - 1, is_last=index == 0)

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
    key: PRNGKeyArray,
    sizes: Sequence[int],
    act_fn: str,
    *,
    use_bias: bool = False,
    parameterisation: str = "standard",
) -> Generator:
    """Build a generator for states of the given sizes (label first), one subkey per layer.

    Initial weights are `equinox.nn.Linear`'s own, uniform in ±1/√fan_in; under "mupc" they are
    standard normal, and biases 0.

    Raises:
        ValueError: if `act_fn` or `parameterisation` is unknown.
    """
    keys = jax.random.split(key, len(sizes) - 1)
    layers = _make_layers(keys, sizes[:-1], sizes[1:], act_fn, use_bias, parameterisation)
    return Generator(layers, act_fn, parameterisation)


def make_amortiser(
    key: PRNGKeyArray,
    sizes: Sequence[int],
    act_fn: str,
    *,
    use_bias: bool = False,
    parameterisation: str = "standard",
) -> Amortiser:
    """Build an amortiser for states of the given sizes (label first), one subkey per layer.

    Subkeys go to the layers in the order in which they are applied, image side first, as in
    the published example. Initial weights are those of `make_generator`.

    Raises:
        ValueError: if `act_fn` or `parameterisation` is unknown.
    """
    keys = jax.random.split(key, len(sizes) - 1)[::-1]
    layers = _make_layers(keys, sizes[1:], sizes[:-1], act_fn, use_bias, parameterisation)
    return Amortiser(layers, act_fn, parameterisation)


def make_networks(
    key: PRNGKeyArray,
    sizes: Sequence[int],
    act_fn: str,
    *,
    use_bias: bool = False,
    parameterisation: str = "standard",
    generator_act_fn: str | None = None,
) -> tuple[Generator, Amortiser]:
    """Build both networks from `gen_key, amort_key = split(key)`.

    With `key = jax.random.PRNGKey(0)` these are the published example's initial weights. The
    generator's activation is `generator_act_fn`, or `act_fn` if that is None.

    Raises:
        ValueError: if `act_fn` or `parameterisation` is unknown.
    """
    generator_key, amortiser_key = jax.random.split(key)
    how = {"use_bias": use_bias, "parameterisation": parameterisation}
    return (
        make_generator(generator_key, sizes, generator_act_fn or act_fn, **how),
        make_amortiser(amortiser_key, sizes, act_fn, **how),
    )


def _make_layers(
    keys: PRNGKeyArray,
    sources: Sequence[int],
    targets: Sequence[int],
    act_fn: str,
    use_bias: bool,
    parameterisation: str,
) -> tuple[eqx.nn.Linear, ...]:
    for what, name, known in (
        ("act_fn", act_fn, ACTIVATIONS),
        ("parameterisation", parameterisation, PARAMETERISATIONS),
    ):
        if name not in known:
            raise ValueError(f"unknown {what} '{name}'; known: {', '.join(known)}")
    layers = [
        eqx.nn.Linear(source, target, use_bias=use_bias, key=key)
        for source, target, key in zip(sources, targets, keys, strict=True)
    ]
    if parameterisation == "mupc":
        layers = [_standard_normal(layer, key) for layer, key in zip(layers, keys, strict=True)]
    return tuple(layers)


def _standard_normal(layer: eqx.nn.Linear, key: PRNGKeyArray) -> eqx.nn.Linear:
    weight = jax.random.normal(key, layer.weight.shape, layer.weight.dtype)
    bias = None if layer.bias is None else jnp.zeros_like(layer.bias)
    return eqx.tree_at(
        lambda one: (one.weight, one.bias), layer, (weight, bias), is_leaf=lambda x: x is None
    )
