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

from bpc_cli.core.convolutions import make_conv, make_upsample
from bpc_cli.core.layers import (
    Activation,
    Layer,
    Residual,
    Shape,
    activation,
    make_dense,
    make_scaled_dense,
    with_output,
)
from bpc_cli.options.names import PARAMETERISATIONS

Layers = tuple[Layer, ...]


class OneChain:
    """What has all its states in one chain, from the label down to the image."""

    @property
    def top(self) -> int:
        """Which state is the top one: the label's."""
        return 0


@dataclasses.dataclass(frozen=True)
class Mlp(OneChain):
    """Dense layers between a label, hidden states of one width, and a flattened image.

    Attributes:
        width: hidden units per state; or a tuple, a number for each hidden state, label side first.
        depth: layers of each direction; depth - 1 states are hidden.
        act_fn: the activation, by name or as a function.
        generator_act_fn: the generator's, if it is another; None: `act_fn`.
        use_bias: whether layers have biases.
        parameterisation: one of `names.PARAMETERISATIONS`.
        generator_output: ψ of the generated image, one of `names.OUTPUTS`, or a function.
        activation_at_ends: whether φ applies to the label and the image, too, when they are read.
    """

    width: int | tuple[int, ...] = 256
    depth: int = 2
    act_fn: str | Activation = "relu"
    generator_act_fn: str | Activation | None = None
    use_bias: bool = False
    parameterisation: str = "standard"
    generator_output: str | Activation = "identity"
    activation_at_ends: bool = False

    def make_layers(
        self, key: PRNGKeyArray, n_top: int, image_shape: tuple[int, int, int]
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
        sizes = [n_top, *widths, math.prod(image_shape)]
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
        return with_output(generator, self.generator_output), amortiser[::-1]

    def _make_direction(
        self, key: PRNGKeyArray, shapes: Sequence[Shape], activation: Activation
    ) -> Layers:
        """Make layers in the order in which they are applied."""
        layers = []
        for number, own_key in enumerate(jax.random.split(key, self.depth)):
            ends = shapes[number], shapes[number + 1]
            phi = activation if number or self.activation_at_ends else jax.nn.identity
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


@dataclasses.dataclass(frozen=True)
class Cnn(OneChain):
    """Convolutional stages from the image on; a dense layer joins the last state to the label.

    The amortiser convolves and pools, the generator convolves and upsamples (Oliviers, Tang &
    Bogacz 2025, whose CIFAR-10 networks are VGGs). States are height × width × channels.

    Attributes:
        channels: the channels of each hidden state, image side first, as one reads a VGG.
        act_fn: the activation, by name or as a function.
        generator_act_fn: the generator's, if it is another; None: `act_fn`.
        use_bias: whether layers have biases.
        pooling: how the amortiser halves, one of `names.POOLINGS`.
        upsampling: how the generator doubles, one of `names.UPSAMPLINGS`.
        halve_every: after how many stages height and width are halved.
        generator_output: ψ of the generated image, one of `names.OUTPUTS`, or a function.
        activation_at_ends: whether φ applies to the label and the image, too, when they are read.
    """

    channels: tuple[int, ...] = (32, 64)
    act_fn: str | Activation = "relu"
    generator_act_fn: str | Activation | None = None
    use_bias: bool = True
    pooling: str = "max"
    upsampling: str = "transpose"
    halve_every: int = 1
    generator_output: str | Activation = "identity"
    activation_at_ends: bool = False

    def make_layers(
        self, key: PRNGKeyArray, n_top: int, image_shape: tuple[int, int, int]
    ) -> tuple[Layers, Layers]:
        """Make both directions' layers from `generator_key, amortiser_key = split(key)`.

        Each direction's key is split over its layers in the order in which they are applied.

        Raises:
            ValueError: for a name that is unknown, or an image that does not halve evenly.
        """
        shapes = self.state_shapes(n_top, image_shape)
        down, up = (
            activation(each) for each in (self.generator_act_fn or self.act_fn, self.act_fn)
        )
        generator_key, amortiser_key = jax.random.split(key)
        return (
            self._make_generator(generator_key, shapes, down),
            self._make_amortiser(amortiser_key, shapes, up),
        )

    def state_shapes(self, n_top: int, image_shape: tuple[int, int, int]) -> list[Shape]:
        """List the shapes of all states, label first.

        Raises:
            ValueError: if a size does not halve evenly, saying which sizes do.
        """
        if not self.channels or min((*self.channels, self.halve_every)) < 1:
            raise ValueError("channels and halve_every must be at least 1")
        factor = 2 ** sum(self._halves(stage) for stage in range(len(self.channels)))
        height, width = image_shape[:2]
        if height % factor or width % factor:
            raise ValueError(
                f"images of {height}×{width} cannot be halved "
                f"{factor.bit_length() - 1} times: sizes must be multiples of {factor}, as "
                f"{_multiples_near(height, factor)} are; or take fewer channels"
            )
        shapes: list[Shape] = [image_shape]
        for stage, channels in enumerate(self.channels):
            by = 2 if self._halves(stage) else 1
            shapes.append((shapes[-1][0] // by, shapes[-1][1] // by, channels))
        return [(n_top,), *shapes[::-1]]

    def _halves(self, stage: int) -> bool:
        return (stage + 1) % self.halve_every == 0

    def _read(self, number: int, phi: Activation) -> Activation:
        """Choose what is applied to a state that the layer of this number reads, in its order."""
        return phi if number or self.activation_at_ends else jax.nn.identity

    def _make_generator(
        self, key: PRNGKeyArray, shapes: Sequence[Shape], phi: Activation
    ) -> Layers:
        keys = jax.random.split(key, len(shapes) - 1)
        first = self._read(0, phi)
        layers: list[Layer] = [
            make_dense(keys[0], shapes[0], shapes[1], first, use_bias=self.use_bias)
        ]
        for number in range(1, len(shapes) - 1):
            doubles = self._halves(len(self.channels) - number)
            layers.append(
                make_upsample(
                    keys[number],
                    (shapes[number], shapes[number + 1]),
                    self._read(number, phi),
                    self.upsampling if doubles else None,
                    use_bias=self.use_bias,
                )
            )
        return with_output(layers, self.generator_output)

    def _make_amortiser(
        self, key: PRNGKeyArray, shapes: Sequence[Shape], phi: Activation
    ) -> Layers:
        upwards = shapes[::-1]
        keys = jax.random.split(key, len(shapes) - 1)
        layers: list[Layer] = [
            make_conv(
                keys[number],
                (upwards[number], upwards[number + 1]),
                self._read(number, phi),
                self.pooling if self._halves(number) else None,
                use_bias=self.use_bias,
            )
            for number in range(len(self.channels))
        ]
        last = len(self.channels)
        layers.append(
            make_dense(
                keys[last],
                upwards[last],
                upwards[last + 1],
                self._read(last, phi),
                use_bias=self.use_bias,
            )
        )
        return tuple(layers[::-1])


def _multiples_near(size: int, factor: int) -> str:
    below = size // factor * factor
    return " and ".join(str(each) for each in (below, below + factor) if each)
