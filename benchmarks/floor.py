"""The floor of a training step: the linear maps that it cannot avoid, and one optimiser update.

Every piece is compiled on its own shapes and timed on its own; the floor is their sum.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from steps import Run

from bpc_cli.core.convolutions import Conv, Upsample, convolution, transposed_convolution
from bpc_cli.core.layers import Layer
from bpc_cli.core.models import Model

REPEATS = 16
Map = Callable[[Array, Array], Array]


def unavoidable_maps(
    depth: int, n_inference_steps: int, *, expanded: bool = False
) -> Iterator[tuple[str, int, str, int]]:
    """List a step's linear maps as (direction, layer, what it does, how many times).

    The amortiser's feedforward pass and the weights' gradients touch every layer; relaxing and
    learning redo every prediction but those from the clamped ends, and relaxing sends each error
    back; the generator generates one image per class. Where the image's term is expanded, it is
    predicted first and last alone, and its error sent back once.
    """
    for i in range(depth):
        reads_free = {"generator": i > 0, "amortiser": i < depth - 1}
        yield "amortiser", i, "predict", 1  # the feedforward pass
        yield "generator", i, "generate", 1
        if not reads_free["generator"]:
            yield "generator", i, "predict", 1  # from the label
        for direction, is_free in reads_free.items():
            yield direction, i, "learn", 1
            if is_free and not (expanded and (direction, i) == ("generator", depth - 1)):
                yield direction, i, "send back", n_inference_steps
        if expanded and i == depth - 1:
            yield "generator", i, "predict", 2
            yield "generator", i, "send back", 1
            yield "generator", i, "square", 1
            yield "generator", i, "step", n_inference_steps
        elif reads_free["generator"]:
            yield "generator", i, "predict", n_inference_steps + 1
        # The first inference step's bottom-up predictions are those of the feedforward pass.
        if reads_free["amortiser"]:
            yield "amortiser", i, "predict", max(n_inference_steps, 1)


def unavoidable_products(
    sizes: list[int], batch: int, n_inference_steps: int, *, expanded: bool
) -> Iterator[tuple[tuple[int, int, int], int]]:
    """List the maps of dense layers as products, ((rows, inner, columns), how many times).

    Args:
        sizes: units of each state, label first.
        batch: images of a step.
        n_inference_steps: inference steps.
        expanded: whether inference steps do not see the image.
    """
    depth = len(sizes) - 1
    for direction, i, what, times in unavoidable_maps(depth, n_inference_steps, expanded=expanded):
        above, below = sizes[i : i + 2]
        read, predicted = (above, below) if direction == "generator" else (below, above)
        yield (
            {
                "predict": (batch, read, predicted),
                "generate": (sizes[0], read, predicted),
                "send back": (batch, predicted, read),
                "learn": (predicted, batch, read),
                "square": (read, predicted, read),
                "step": (batch, read, read),
            }[what],
            times,
        )


def unavoidable_convolutions(
    model: Model, batch: int, n_inference_steps: int
) -> Iterator[tuple[list[Run], int]]:
    """Compile a model's maps, without bias, activation and pooling: (ways to do it, how often)."""
    for direction, i, what, times in unavoidable_maps(model.depth, n_inference_steps):
        layer = getattr(model, direction)[i]
        n_states = model.n_classes if what == "generate" else batch
        yield [bare_map(way, layer, n_states, what) for way in ways_to_map(layer)], times


def ways_to_map(layer: Layer) -> list[Map]:
    """List ways to apply a layer's weights to a batch of states, ours and XLA's own."""
    if isinstance(layer, Conv):
        stride = 2 if layer.pooling == "stride" else 1
        return [
            functools.partial(by_xla, strides=(stride, stride), padding=[(1, 1), (1, 1)]),
            jax.vmap(lambda state, kernel: convolution(state, kernel, stride), (0, None)),
        ]
    if isinstance(layer, Upsample) and layer.upsampling == "transpose":
        dilated = functools.partial(by_xla, padding=[(2, 2), (2, 2)], lhs_dilation=(2, 2))
        return [
            lambda states, kernel: dilated(states, kernel[::-1, ::-1]),
            jax.vmap(transposed_convolution, (0, None)),
        ]
    return [lambda states, weight: states.reshape(len(states), -1) @ weight.T]


def by_xla(
    states: Array,
    kernel: Array,
    strides: tuple[int, int] = (1, 1),
    padding: Sequence[tuple[int, int]] = (),
    lhs_dilation: tuple[int, int] = (1, 1),
) -> Array:
    """Apply a convolution of XLA's to a batch of states, channels last."""
    return lax.conv_general_dilated(
        states, kernel, strides, padding, lhs_dilation, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def bare_map(apply: Map, layer: Layer, n_states: int, what: str) -> Run:
    """Compile a map or one of its transposes, and call it `REPEATS` times without waiting."""
    weight = next(leaf for leaf in jax.tree.leaves(layer) if leaf.ndim > 1)  # no bias
    states = jax.random.normal(jax.random.PRNGKey(0), (n_states, *layer.in_shape))
    errors = jax.random.normal(jax.random.PRNGKey(1), jax.eval_shape(apply, states, weight).shape)

    def send_back(errors: Array, weight: Array) -> Array:
        return jax.linear_transpose(lambda each: apply(each, weight), states)(errors)[0]

    def learn(errors: Array, states: Array) -> Array:
        return jax.linear_transpose(lambda each: apply(states, each), weight)(errors)[0]

    function, given = {
        "predict": (apply, (states, weight)),
        "generate": (apply, (states, weight)),
        "send back": (send_back, (errors, weight)),
        "learn": (learn, (errors, states)),
    }[what]
    compiled = jax.jit(function)

    def run() -> object:
        for _ in range(REPEATS):
            result = compiled(*given)
        return jax.block_until_ready(result)

    run()
    return run


def bare_product(rows: int, inner: int, columns: int) -> Run:
    """Compile one product, and call it `REPEATS` times without waiting in between."""
    left = jax.random.normal(jax.random.PRNGKey(0), (rows, inner))
    right = jax.random.normal(jax.random.PRNGKey(1), (inner, columns))
    product = jax.jit(jnp.matmul)

    def run() -> object:
        for _ in range(REPEATS):
            result = product(left, right)
        return jax.block_until_ready(result)

    run()
    return run


def bare_update(shapes: list[tuple[int, ...]], optimiser: optax.GradientTransformation) -> Run:
    """Compile `REPEATS` updates of weights of these shapes."""
    params = [jax.random.normal(jax.random.PRNGKey(0), shape) for shape in shapes]

    @jax.jit
    def run(params, gradients):
        def step(carry, _):
            params, state = carry
            updates, state = optimiser.update(gradients, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimiser.init(params)), length=REPEATS)[0]

    jax.block_until_ready(run(params, params))
    return lambda: jax.block_until_ready(run(params, params))


def both_directions(sizes: list[int]) -> list[tuple[int, ...]]:
    """List the shapes of both directions' dense layers."""
    return [shape for pair in itertools.pairwise(sizes) for shape in (pair, pair[::-1])]
