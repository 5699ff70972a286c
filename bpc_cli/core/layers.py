"""Layers: each maps one state of one sample to the prediction of its neighbour."""

import abc
import math
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from bpc_cli.options.names import ACTIVATIONS, OUTPUTS

Shape = tuple[int, ...]
Activation = Callable[[Array], Array]


def activation(function: str | Activation) -> Activation:
    """Look up an activation function by its name; whatever can be called is taken as it is.

    Raises:
        ValueError: if the name is not one of `options.names.ACTIVATIONS`, or what is given cannot
            be hashed, as a compiled program's constants must be.
    """
    if not isinstance(function, str):
        try:
            hash(function)
        except TypeError as error:
            raise ValueError(
                f"an activation must be hashable: wrap {type(function).__name__} in a function"
            ) from error
        return function
    if function not in ACTIVATIONS:
        raise ValueError(f"unknown act_fn '{function}'; known: {', '.join(ACTIVATIONS)}")
    return getattr(jax.nn, ACTIVATIONS[function])


class Layer(eqx.Module):
    """Predicts a state from its neighbour, of one sample.

    Attributes:
        in_shape: the shape of the state that it reads.
        out_shape: the shape of the state that it predicts.
    """

    in_shape: eqx.AbstractVar[Shape]
    out_shape: eqx.AbstractVar[Shape]

    @abc.abstractmethod
    def __call__(self, state: Float[Array, "*source"]) -> Float[Array, "*target"]:
        """Predict the neighbour of a state."""


class Dense(Layer):
    """scale · W φ(state) + b: each unit predicted reads all units of the state.

    Attributes:
        weight: W.
        bias: b, or None for none.
        in_shape, out_shape: as of every layer; states are flattened and shaped as they must be.
        activation: φ; the identity at a network's own input.
        scale: what the product is multiplied by.
    """

    weight: Float[Array, "out in"]
    bias: Float[Array, " out"] | None
    in_shape: Shape = eqx.field(static=True)
    out_shape: Shape = eqx.field(static=True)
    activation: Activation = eqx.field(static=True, default=jax.nn.identity)
    scale: float = eqx.field(static=True, default=1.0)

    def __check_init__(self):
        wanted = (math.prod(self.out_shape), math.prod(self.in_shape))
        if self.weight.shape != wanted:
            raise ValueError(f"a weight of shape {self.weight.shape} must have shape {wanted}")

    def __call__(self, state: Float[Array, "*source"]) -> Float[Array, "*target"]:
        if state.shape != self.in_shape:
            raise ValueError(
                f"a state of shape {self.in_shape} is wanted, not {state.shape}: jax.vmap applies "
                "functions of one sample to many"
            )
        product = self.activate(state) @ self.weight.T
        if self.scale != 1.0:
            product = product * self.scale
        if self.bias is not None:
            product = product + self.bias
        return product.reshape(self.out_shape)

    def activate(self, state: Float[Array, "*source"]) -> Float[Array, " in"]:
        """Compute φ(state), flattened, which the prediction is linear in."""
        return self.activation(state).ravel()


class Around(Layer):
    """What is built around another layer, and has its shapes.

    Attributes:
        layer: the layer.
    """

    layer: Layer

    @property
    def in_shape(self) -> Shape:
        """The shape that its layer reads."""
        return self.layer.in_shape

    @property
    def out_shape(self) -> Shape:
        """The shape that its layer predicts."""
        return self.layer.out_shape


class Residual(Around):
    """state + layer(state): a layer with a skip connection around it.

    Attributes:
        layer: the layer, which must predict a state of the shape that it reads.
    """

    def __init__(self, layer: Layer):
        self.layer = layer

    def __check_init__(self):
        if self.in_shape != self.out_shape:
            raise ValueError(
                f"a skip connection needs states of one shape, not {self.in_shape} and "
                f"{self.out_shape}"
            )

    def __call__(self, state: Float[Array, "*source"]) -> Float[Array, "*target"]:
        return state + self.layer(state)


class Output(Around):
    """ψ(layer(state)): a layer whose prediction is bounded, as an image's pixels are.

    Attributes:
        layer: the layer.
        function: ψ.
    """

    function: Activation = eqx.field(static=True)

    def __init__(self, layer: Layer, function: Activation):
        self.layer = layer
        self.function = function

    def __call__(self, state: Float[Array, "*source"]) -> Float[Array, "*target"]:
        return self.function(self.layer(state))


def with_output(layers: Sequence[Layer], function: str | Activation) -> tuple[Layer, ...]:
    """Apply a function to what the last of layers predicts; the identity changes nothing.

    Raises:
        ValueError: if its name is not one of `options.names.OUTPUTS`.
    """
    if isinstance(function, str):
        if function not in OUTPUTS:
            raise ValueError(f"unknown output '{function}'; known: {', '.join(OUTPUTS)}")
        function = getattr(jax.nn, OUTPUTS[function])
    if function is jax.nn.identity:
        return tuple(layers)
    return (*layers[:-1], Output(layers[-1], activation(function)))


def make_dense(
    key: PRNGKeyArray,
    in_shape: Shape,
    out_shape: Shape,
    activation: Activation = jax.nn.identity,
    *,
    use_bias: bool = False,
) -> Dense:
    """Make a dense layer with `equinox.nn.Linear`'s initial weights, uniform in ±1/√fan_in."""
    fan_in, fan_out = math.prod(in_shape), math.prod(out_shape)
    linear = eqx.nn.Linear(fan_in, fan_out, use_bias=use_bias, key=key)
    return Dense(
        weight=linear.weight,
        bias=linear.bias,
        in_shape=in_shape,
        out_shape=out_shape,
        activation=activation,
    )


def make_scaled_dense(
    key: PRNGKeyArray,
    in_shape: Shape,
    out_shape: Shape,
    activation: Activation,
    scale: float,
    *,
    use_bias: bool = False,
) -> Dense:
    """Make a dense layer with standard normal initial weights and a scaled product."""
    shape = (math.prod(out_shape), math.prod(in_shape))
    weight = jax.random.normal(key, shape, jnp.result_type(float))
    bias = jnp.zeros(shape[0], weight.dtype) if use_bias else None
    return Dense(
        weight=weight,
        bias=bias,
        in_shape=in_shape,
        out_shape=out_shape,
        activation=activation,
        scale=scale,
    )
