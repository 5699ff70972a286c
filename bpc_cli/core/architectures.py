"""What layers a model has.

Under the parameterisation "mupc" each product has a scale of its own, and layers between hidden
states have skip connections (Innocenti, Achour & Buckley 2025, μPC, arXiv 2505.13124), here in both
directions: weights are standard normal; the first layer applied is scaled by 1/√fan_in, those
between hidden states by 1/√(fan_in · depth), and the last by 1/fan_in.
"""

import dataclasses
import math
from collections.abc import Sequence

import jax
from jaxtyping import PRNGKeyArray

from bpc_cli.core.layers import (
    Activation,
    Layer,
    Residual,
    Shape,
    activation,
    make_dense,
    make_scaled_dense,
)
from bpc_cli.options.names import PARAMETERISATIONS

Layers = tuple[Layer, ...]


@dataclasses.dataclass(frozen=True)
class Mlp:
    """Dense layers between a label, hidden states of one width, and a flattened image.

    Attributes:
        width: hidden units per state; or a tuple, a number for each hidden state, label side first.
        depth: layers of each direction; depth - 1 states are hidden.
        act_fn: the activation, by name or as a function.
        generator_act_fn: the generator's, if it is another; None: `act_fn`.
        use_bias: whether layers have biases.
        parameterisation: one of `names.PARAMETERISATIONS`.
    """

    width: int | tuple[int, ...] = 256
    depth: int = 2
    act_fn: str | Activation = "relu"
    generator_act_fn: str | Activation | None = None
    use_bias: bool = False
    parameterisation: str = "standard"

    def make_layers(
        self, key: PRNGKeyArray, n_classes: int, image_shape: tuple[int, int, int]
    ) -> tuple[Layers, Layers]:
        """Make both directions' layers from `generator_key, amortiser_key = split(key)`.

        Each direction's key is split over its layers in the order in which they are applied.

        Raises:
            ValueError: for a name that is unknown, or a size below 1.
        """
        if self.parameterisation not in PARAMETERISATIONS:
            raise ValueError(
                f"unknown parameterisation '{self.parameterisation}'; known: "
                f"{', '.join(PARAMETERISATIONS)}"
            )
        widths = (self.width,) * (self.depth - 1) if isinstance(self.width, int) else self.width
        sizes = [n_classes, *widths, math.prod(image_shape)]
        if self.depth != len(widths) + 1 or min(sizes) < 1:
            raise ValueError(
                "depth, width and the sizes of label and image must be at least 1, and there is a "
                "width for each of depth - 1 hidden states"
            )
        shapes: list[Shape] = [(size,) for size in sizes]
        down, up = (
            activation(each) for each in (self.generator_act_fn or self.act_fn, self.act_fn)
        )
        generator_key, amortiser_key = jax.random.split(key)
        generator = self._make_direction(generator_key, shapes, down)
        amortiser = self._make_direction(amortiser_key, shapes[::-1], up)
        return generator, amortiser[::-1]

    def _make_direction(
        self, key: PRNGKeyArray, shapes: Sequence[Shape], activation: Activation
    ) -> Layers:
        """Make layers in the order in which they are applied."""
        layers = []
        for number, own_key in enumerate(jax.random.split(key, self.depth)):
            ends = shapes[number], shapes[number + 1]
            phi = activation if number else jax.nn.identity
            if self.parameterisation == "standard":
                layers.append(make_dense(own_key, *ends, phi, use_bias=self.use_bias))
                continue
            fan_in = math.prod(ends[0])
            scale = 1 / math.sqrt(fan_in * self.depth)
            if number == 0:
                scale = 1 / math.sqrt(fan_in)
            elif number == self.depth - 1:
                scale = 1 / fan_in
            layer = make_scaled_dense(own_key, *ends, phi, scale, use_bias=self.use_bias)
            is_between = 0 < number < self.depth - 1
            layers.append(Residual(layer) if is_between else layer)
        return tuple(layers)
