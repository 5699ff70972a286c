"""Replicas: one program over several networks of the same shapes, stacked along a leading axis."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

Tree = TypeVar("Tree", bound=PyTree)


def stack(trees: Sequence[Tree]) -> Tree:
    """Stack the arrays of pytrees that are alike in everything else; they come to the host.

    NumPy does it: JAX would compile a program for every shape.
    """
    return _merge(np.stack, trees)


def join(stacks: Sequence[Tree]) -> Tree:
    """Make one stack of several, on the host."""
    return _merge(np.concatenate, stacks)


def take(stacked: Tree, which: int | slice) -> Tree:
    """Take one replica out of a stack on the host, or by a slice several that stay stacked."""
    return jax.tree.map(lambda leaf: np.asarray(leaf[which]) if _is_array(leaf) else leaf, stacked)


def with_leading_axis(tree: Tree, size: int) -> Tree:
    """Describe a stack of `size` replicas of a tree of `jax.ShapeDtypeStruct`s."""
    return jax.tree.map(
        lambda leaf: (
            jax.ShapeDtypeStruct((size, *leaf.shape), leaf.dtype)
            if isinstance(leaf, jax.ShapeDtypeStruct)
            else leaf
        ),
        tree,
    )


def static_of(tree: Tree) -> Tree:
    """Take what of a tree is no array, and so is compiled into a program."""
    return eqx.partition(tree, _is_array)[1]


def n_replicas(stacked: PyTree) -> int:
    """Count the replicas of a stack."""
    return len(jax.tree.leaves(eqx.filter(stacked, _is_array))[0])


def over_replicas(function: Callable[[Any], Any], stacked: PyTree) -> Any:
    """Compute a function of every replica of a stack, vectorised; its results are stacked too.

    A single replica is not vectorised: it gets the plain function's program, to the bit.
    """
    arrays, static = eqx.partition(stacked, _is_array)

    def of_one(arrays):
        return function(eqx.combine(arrays, static))

    if n_replicas(arrays) > 1:
        return eqx.filter_vmap(of_one)(arrays)
    result = of_one(jax.tree.map(lambda leaf: leaf[0], arrays))
    return jax.tree.map(lambda leaf: leaf[None] if _is_array(leaf) else leaf, result)


def _merge(merge: Callable[[Sequence[np.ndarray]], np.ndarray], trees: Sequence[Tree]) -> Tree:
    arrays, static = zip(*(eqx.partition(tree, _is_array) for tree in trees), strict=True)
    merged = jax.tree.map(lambda *leaves: merge(leaves), *jax.device_get(arrays))
    return eqx.combine(merged, static[0])


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray)
