"""Convolutional layers: each stage halves an image's height and width, or doubles them again.

States are height × width × channels, as images are. Like every layer, these apply the activation to
the state that they read (Oliviers, Tang & Bogacz 2025, appendix on CIFAR-10).
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from bpc_cli.core.layers import Activation, Layer, Shape
from bpc_cli.options.names import POOLINGS, UPSAMPLINGS

_AS_IMAGES = ("NHWC", "HWIO", "NHWC")
_KERNEL = 3
_TRANSPOSED_KERNEL = 4


class Conv(Layer):
    """pool(K ⋆ φ(state) + b): a 3×3 convolution, which may be followed by 2×2 pooling.

    Attributes:
        kernel: K, a cross-correlation; padding keeps height and width.
        bias: b, or None for none.
        in_shape, out_shape: height, width and channels.
        activation: φ.
        pooling: one of `names.POOLINGS`: "max" or "avg" over 2×2 pixels, "stride" for a convolution
            that takes every other pixel instead; None: height and width stay.
    """

    kernel: Float[Array, "3 3 in out"]
    bias: Float[Array, " out"] | None
    in_shape: Shape = eqx.field(static=True)
    out_shape: Shape = eqx.field(static=True)
    activation: Activation = eqx.field(static=True, default=jax.nn.identity)
    pooling: str | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        height, width, channels = self.in_shape
        factor = 1 if self.pooling is None else 2
        if self.pooling not in (None, *POOLINGS):
            raise ValueError(f"unknown pooling '{self.pooling}'; known: {', '.join(POOLINGS)}")
        if (factor * self.out_shape[0], factor * self.out_shape[1]) != (height, width):
            raise ValueError(f"{self.in_shape} does not become {self.out_shape} by a stage")
        _check_kernel(self.kernel, (_KERNEL, _KERNEL, channels, self.out_shape[2]))

    def __call__(self, state: Float[Array, "*source"]) -> Float[Array, "*target"]:
        _check_state(state, self.in_shape)
        stride = 2 if self.pooling == "stride" else 1
        convolved = convolution(self.activation(state), self.kernel, stride=stride)
        if self.bias is not None:
            convolved = convolved + self.bias
        if self.pooling in (None, "stride"):
            return convolved
        height, width, channels = self.out_shape
        blocks = convolved.reshape(height, 2, width, 2, channels)
        return blocks.max(axis=(1, 3)) if self.pooling == "max" else blocks.mean(axis=(1, 3))


class Upsample(Layer):
    """K ⋆ φ(state) + b, upsampled: what doubles height and width.

    Attributes:
        kernel: K. For "transpose" that of a transposed convolution with stride 2 and padding 1:
            out[y, x] = Σ in[i, j] K[y - 2i + 1, x - 2j + 1]; for "resize" that of a convolution
            after each pixel has become 2×2, which leaves no checkerboards (Odena, Dumoulin & Olah
            2016); without upsampling that of a convolution.
        bias: b, or None for none.
        in_shape, out_shape: height, width and channels.
        activation: φ.
        upsampling: one of `names.UPSAMPLINGS`; None: height and width stay.
    """

    kernel: Float[Array, "kernel kernel in out"]
    bias: Float[Array, " out"] | None
    in_shape: Shape = eqx.field(static=True)
    out_shape: Shape = eqx.field(static=True)
    activation: Activation = eqx.field(static=True, default=jax.nn.identity)
    upsampling: str | None = eqx.field(static=True, default="transpose")

    def __check_init__(self):
        height, width, channels = self.in_shape
        factor = 1 if self.upsampling is None else 2
        if self.upsampling not in (None, *UPSAMPLINGS):
            raise ValueError(
                f"unknown upsampling '{self.upsampling}'; known: {', '.join(UPSAMPLINGS)}"
            )
        if self.out_shape[:2] != (factor * height, factor * width):
            raise ValueError(f"{self.in_shape} does not become {self.out_shape} by a stage")
        size = _TRANSPOSED_KERNEL if self.upsampling == "transpose" else _KERNEL
        _check_kernel(self.kernel, (size, size, channels, self.out_shape[2]))

    def __call__(self, state: Float[Array, "*source"]) -> Float[Array, "*target"]:
        _check_state(state, self.in_shape)
        read = self.activation(state)
        if self.upsampling == "transpose":
            predicted = transposed_convolution(read, self.kernel)
        else:
            if self.upsampling == "resize":
                read = read.repeat(2, axis=0).repeat(2, axis=1)
            predicted = convolution(read, self.kernel)
        if self.bias is not None:
            predicted = predicted + self.bias
        return predicted


def convolution(
    state: Float[Array, "height width in"],
    kernel: Float[Array, "size size in out"],
    stride: int = 1,
) -> Float[Array, "rows columns out"]:
    """Apply a cross-correlation, padded by one pixel of zeros on all sides.

    On CPUs it is a product of the kernel with every place's pixels, side by side: in a loop, as
    inference and training are, XLA's own convolutions have gradients there that are many times
    slower.
    """
    if jax.default_backend() != "cpu":
        strides = (stride, stride)
        padding = [(1, 1), (1, 1)]
        return lax.conv_general_dilated(
            state[None], kernel, strides, padding, dimension_numbers=_AS_IMAGES
        )[0]
    size, _, channels, n_out = kernel.shape
    padded = jnp.pad(state, ((1, 1), (1, 1), (0, 0)))
    n_rows, n_columns = ((side + 2 - size) // stride + 1 for side in state.shape[:2])
    places = [
        padded[
            y : y + stride * (n_rows - 1) + 1 : stride,
            x : x + stride * (n_columns - 1) + 1 : stride,
        ]
        for y in range(size)
        for x in range(size)
    ]
    product = jnp.concatenate(places, axis=-1).reshape(-1, size * size * channels)
    product = product @ kernel.reshape(size * size * channels, n_out)
    return product.reshape(n_rows, n_columns, n_out)


def transposed_convolution(
    state: Float[Array, "height width in"], kernel: Float[Array, "4 4 in out"]
) -> Float[Array, "2*height 2*width out"]:
    """Apply a transposed convolution of stride 2 and padding 1.

    Each of the four pixels that a pixel becomes sees 2×2 pixels of the state, by a quarter of the
    kernel: this is a convolution with four times the channels, without holes, at which XLA is slow
    on CPUs.
    """
    height, width, channels = state.shape
    n_out = kernel.shape[3]
    # Rows 1 and 3 of the kernel reach even pixels, rows 0 and 2 odd ones; the nearer one last.
    taps = kernel.reshape(2, 2, 2, 2, channels, n_out)  # step, parity for rows, then for columns
    quarters = taps[::-1, ::-1][:, :, ::-1, ::-1].transpose(0, 2, 4, 1, 3, 5)
    seen = convolution(state, quarters.reshape(2, 2, channels, 4 * n_out))
    seen = seen.reshape(height + 1, width + 1, 2, 2, n_out)
    rows = [
        jnp.stack([seen[a : a + height, b : b + width, a, b] for b in (0, 1)], axis=2)
        for a in (0, 1)
    ]
    return jnp.stack(rows, axis=1).reshape(2 * height, 2 * width, n_out)


def make_conv(
    key: PRNGKeyArray,
    shapes: tuple[Shape, Shape],
    activation: Activation,
    pooling: str | None,
    *,
    use_bias: bool = True,
) -> Conv:
    """Make a convolution from one shape to another, with initial weights uniform in ±1/√fan_in."""
    in_shape, out_shape = shapes
    kernel, bias = _initial(
        key, (_KERNEL, _KERNEL, in_shape[2], out_shape[2]), _KERNEL**2 * in_shape[2], use_bias
    )
    return Conv(
        kernel=kernel,
        bias=bias,
        in_shape=in_shape,
        out_shape=out_shape,
        activation=activation,
        pooling=pooling,
    )


def make_upsample(
    key: PRNGKeyArray,
    shapes: tuple[Shape, Shape],
    activation: Activation,
    upsampling: str | None,
    *,
    use_bias: bool = True,
) -> Upsample:
    """Make a layer from one shape to another, with initial weights uniform in ±1/√fan_in.

    Of a transposed convolution a quarter of the kernel reaches each pixel.
    """
    in_shape, out_shape = shapes
    is_transposed = upsampling == "transpose"
    size = _TRANSPOSED_KERNEL if is_transposed else _KERNEL
    fan_in = size**2 * in_shape[2] // (4 if is_transposed else 1)
    kernel, bias = _initial(key, (size, size, in_shape[2], out_shape[2]), fan_in, use_bias)
    return Upsample(
        kernel=kernel,
        bias=bias,
        in_shape=in_shape,
        out_shape=out_shape,
        activation=activation,
        upsampling=upsampling,
    )


def _initial(
    key: PRNGKeyArray, shape: Shape, fan_in: int, use_bias: bool
) -> tuple[Array, Array | None]:
    kernel_key, bias_key = jax.random.split(key)
    bound, dtype = 1 / math.sqrt(fan_in), jnp.result_type(float)
    kernel = jax.random.uniform(kernel_key, shape, dtype, -bound, bound)
    if not use_bias:
        return kernel, None
    return kernel, jax.random.uniform(bias_key, shape[-1:], dtype, -bound, bound)


def _check_kernel(kernel: Array, wanted: Shape) -> None:
    if kernel.shape != wanted:
        raise ValueError(f"a kernel of shape {kernel.shape} must have shape {wanted}")


def _check_state(state: Array, wanted: Shape) -> None:
    if state.shape != wanted:
        raise ValueError(
            f"a state of shape {wanted} is wanted, not {state.shape}: jax.vmap applies "
            "functions of one sample to many"
        )
