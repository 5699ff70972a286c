"""The floor of a training step: the matrix products that it cannot avoid, and one Adam update.

Every piece is compiled on its own shapes and timed on its own; the floor is their sum.
"""

import itertools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import optax

REPEATS = 16


def unavoidable_products(
    sizes: list[int], batch: int, n_inference_steps: int
) -> Iterator[tuple[tuple[int, int, int], int]]:
    """List a step's products as ((rows, inner, columns), how many times), label side first.

    The amortiser's feedforward pass and the weights' gradients touch every layer; relaxing and
    learning redo every prediction but those from the clamped ends, and relaxing sends each error
    back; the generator generates one image per class.
    """
    depth = len(sizes) - 1
    for i, (above, below) in enumerate(itertools.pairwise(sizes)):
        yield (batch, below, above), 1  # the amortiser's feedforward pass
        yield (sizes[0], above, below), 1  # generating the classes
        yield (above, batch, below), 1  # the amortiser's gradient
        yield (below, batch, above), 1  # the generator's gradient
        if i == 0:
            yield (batch, above, below), 1  # the generator's prediction from the label
        # The first inference step's bottom-up predictions are those of the feedforward pass.
        if i > 0:
            yield (batch, above, below), n_inference_steps + 1
            yield (batch, below, above), n_inference_steps  # the error sent back
        if i < depth - 1:
            yield (batch, below, above), max(n_inference_steps, 1)
            yield (batch, above, below), n_inference_steps


def bare_product(rows: int, inner: int, columns: int) -> Callable[[], object]:
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


def bare_adam(sizes: list[int]) -> Callable[[], object]:
    """Compile `REPEATS` updates of both networks' weights by `optax.adam`."""
    shapes = [shape for pair in itertools.pairwise(sizes) for shape in (pair, pair[::-1])]
    params = [jax.random.normal(jax.random.PRNGKey(0), shape) for shape in shapes]
    adam = optax.adam(1e-3)

    @jax.jit
    def run(params, gradients):
        def step(carry, _):
            params, state = carry
            updates, state = adam.update(gradients, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, adam.init(params)), length=REPEATS)[0]

    jax.block_until_ready(run(params, params))
    return lambda: jax.block_until_ready(run(params, params))
