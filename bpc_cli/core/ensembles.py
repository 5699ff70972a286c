"""Ensembles: one program over several models of the same shapes, stacked along a leading axis."""

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


def take(ensemble: Tree, which: int | slice) -> Tree:
    """Take one member out of an ensemble on the host, or by a slice several that stay stacked."""
    return jax.tree.map(lambda leaf: np.asarray(leaf[which]) if _is_array(leaf) else leaf, ensemble)


def with_leading_axis(tree: Tree, size: int) -> Tree:
    """Describe an ensemble of `size` of a tree of `jax.ShapeDtypeStruct`s."""
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


def n_members(ensemble: PyTree) -> int:
    """Count the members of an ensemble."""
    return len(jax.tree.leaves(eqx.filter(ensemble, _is_array))[0])


def over_ensemble(function: Callable[[Any], Any], ensemble: PyTree) -> Any:
    """Compute a function of every member of an ensemble, vectorised; its results are stacked too.

    A single member is not vectorised: it gets the plain function's program, to the bit.
    """
    arrays, static = eqx.partition(ensemble, _is_array)

    def of_one(arrays):
        return function(eqx.combine(arrays, static))

    if n_members(arrays) > 1:
        return eqx.filter_vmap(of_one)(arrays)
    result = of_one(jax.tree.map(lambda leaf: leaf[0], arrays))
    return jax.tree.map(lambda leaf: leaf[None] if _is_array(leaf) else leaf, result)


def _merge(merge: Callable[[Sequence[np.ndarray]], np.ndarray], trees: Sequence[Tree]) -> Tree:
    arrays, static = zip(*(eqx.partition(tree, _is_array) for tree in trees), strict=True)
    merged = jax.tree.map(lambda *leaves: merge(leaves), *jax.device_get(arrays))
    return eqx.combine(merged, static[0])


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray)
