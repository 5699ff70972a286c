"""Functions of many rows, a block of rows at a time."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

Result = TypeVar("Result")


def in_blocks(function: Callable[..., Result], rows: Sequence[Array], block_size: int) -> Result:
    """Apply a function to all rows of arrays, in blocks that bound its memory.

    Args:
        function: of a block of each array; its results have a row for each of the block's.
        rows: arrays of as many rows.
        block_size: the rows of a block.
    """
    n_rows = len(rows[0])
    block = min(block_size, n_rows)
    n_blocks = -(-n_rows // block)
    # The last block is filled up with repeats of the last row, cut off again below.
    indices = jnp.minimum(jnp.arange(n_blocks * block), n_rows - 1)
    blocks = jax.lax.map(
        lambda chosen: function(*(array[chosen] for array in rows)),
        indices.reshape(n_blocks, block),
    )
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:n_rows], blocks)
