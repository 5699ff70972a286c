"""What networks do by relaxation at test time: name images, and draw classes.

Each is inference under a clamping: the image alone (the label is a free layer of its own), the
image and each candidate label in turn, or the label alone (the image is free).
"""

import itertools
import time
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from bpc_cli.core.batching import in_blocks
from bpc_cli.core.clamping import (
    Clamping,
    Free,
    each_label_alone,
    image_alone,
    infer,
    inference_energy,
)
from bpc_cli.core.inference import relative_distance
from bpc_cli.core.models import Amortiser, Generator
from bpc_cli.core.rules import Rules
from bpc_cli.data.pixels import PixelScale, normalise, to_unit_range

Networks = tuple[Generator, Amortiser]


@eqx.filter_jit
def name_by_free_label(
    networks: Networks,
    images: UInt8[Array, "examples image"],
    scale: PixelScale,
    rules: Rules,
    batch_size: int,
    block_size: int = 500,
) -> tuple[Int[Array, " examples"], Float[Array, " examples"]]:
    """Name every image by the largest entry of a label that relaxes with the activities.

    Args:
        networks: generator and amortiser.
        images: as uint8, worked on in blocks.
        scale: how pixels are normalised.
        rules: algorithm, energy weights, activity optimiser, number of inference steps.
        batch_size: of a mean energy's gradient, at rate/batch_size per sample as in training.
        block_size: the images of a block.

    Returns:
        The classes, and how far the hidden activities moved: ‖z - z_start‖ / ‖z_start‖, 0 where
        they started at 0.
    """
    return in_blocks(
        lambda pixels: _by_free_label(networks, normalise(pixels, scale), rules, batch_size),
        [images],
        block_size,
    )


@eqx.filter_jit
def name_by_lowest_energy(
    networks: Networks,
    images: UInt8[Array, "examples image"],
    scale: PixelScale,
    rules: Rules,
    batch_size: int,
    block_size: int = 500,
) -> Int[Array, " examples"]:
    """Name every image by the class whose clamped label leaves the lowest relaxed energy.

    The arguments are those of `name_by_free_label`.
    """
    return in_blocks(
        lambda pixels: _by_lowest_energy(networks, normalise(pixels, scale), rules, batch_size),
        [images],
        block_size,
    )


@eqx.filter_jit
def draw_by_relaxation(
    networks: Networks, scale: PixelScale, rules: Rules, batch_size: int
) -> Float[Array, "classes image"]:
    """Draw each class by an image that relaxes with the activities; black is 0 and white is 1.

    Activities and image start from the generator's pass.
    """
    clamping = each_label_alone(networks[0])
    free = clamping.begin("generative", *networks)
    states, _ = infer(networks, clamping, free, rules, batch_size)
    return to_unit_range(states.image, scale)


def timed(function: Any, *arguments: Any) -> tuple[Any, float]:
    """Call a compiled function; return its result, and its seconds less those of compiling."""
    compiled = function.lower(*arguments).compile()
    began = time.perf_counter()
    result = jax.block_until_ready(compiled(*arguments))
    return result, time.perf_counter() - began


def flops_per_image(sizes: Sequence[int], n_steps: int, n_directions: int) -> dict[str, float]:
    """Count the multiplications and additions of matrix products that naming an image takes.

    A pass takes 2 per weight. A step of relaxation takes, for each direction, a prediction and an
    error sent back: 4 per weight. Each candidate's energy takes a prediction more.

    Args:
        sizes: of all states, label first.
        n_steps: inference steps.
        n_directions: how many networks' errors activities relax on.
    """
    weights = sum(above * below for above, below in itertools.pairwise(sizes))
    steps = 4 * weights * n_directions * n_steps
    return {
        "feedforward": 2.0 * weights,
        "relaxed": 2.0 * weights + steps,
        "lowest_energy": sizes[0] * (2.0 * weights * (1 + n_directions) + steps),
    }


def _by_free_label(
    networks: Networks,
    image: Float[Array, "batch image"],
    rules: Rules,
    batch_size: int,
) -> tuple[Int[Array, " batch"], Float[Array, " batch"]]:
    clamping = image_alone(image, n_classes(networks))
    free = clamping.begin(rules.start, *networks, rules.key)
    states, _ = infer(networks, clamping, free, rules, batch_size)
    moved = relative_distance(states.activities, free.activities)
    return jnp.argmax(states.label, axis=1), jnp.broadcast_to(moved, len(image))


def _by_lowest_energy(
    networks: Networks,
    image: Float[Array, "batch image"],
    rules: Rules,
    batch_size: int,
) -> Int[Array, " batch"]:
    def energies_of(one_hot: Float[Array, " label"]) -> Float[Array, " batch"]:
        clamping = Clamping(jnp.broadcast_to(one_hot, (len(image), len(one_hot))), image)
        free = clamping.begin(rules.start, *networks, rules.key)
        _, relaxation = infer(networks, clamping, free, rules, batch_size)

        def alone(label, image, activities):
            sample = Clamping(label[None], image[None])
            free = Free(None, [activity[None] for activity in activities], None)
            return inference_energy(networks, sample, free, rules)

        return jax.vmap(alone)(*clamping[:2], relaxation.free.activities)

    candidates = jnp.eye(n_classes(networks), dtype=image.dtype)
    return jnp.argmin(jax.lax.map(energies_of, candidates), axis=0)


def n_classes(networks: Networks) -> int:
    """Count the classes that networks tell apart."""
    return networks[0].layers[0].weight.shape[1]
