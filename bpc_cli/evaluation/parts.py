"""Long computations over images, a part at a time, with a progress bar."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

PART_SIZE = 500


def in_parts(
    function: Callable[..., Any], rows: Sequence[Any], about: str, size: int = PART_SIZE
) -> Any:
    """Apply a compiled function to all rows of arrays, a part at a time.

    Standard error shows how far it is, where that is a terminal.

    Args:
        function: of a part of each array; its results have a row for each of the part's.
        rows: arrays of as many rows.
        about: what is computed, beside the bar.
        size: the rows of a part. The last part is filled up with repeats of the last row, so that
            one program serves all.

    Returns:
        The function's results for all rows, as NumPy arrays.
    """
    n_rows = len(rows[0])
    size = min(size, n_rows)
    results = []
    with tqdm(total=n_rows, desc=about, unit="image", disable=None, leave=False) as progress:
        for first in range(0, n_rows, size):
            chosen = np.minimum(np.arange(first, first + size), n_rows - 1)
            part = (jnp.asarray(np.asarray(array)[chosen]) for array in rows)
            results.append(jax.device_get(function(*part)))
            progress.update(min(size, n_rows - first))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:n_rows], *results)
