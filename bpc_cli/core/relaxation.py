"""Relaxing: gradient steps on an energy, of whatever is free in it."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer, PyTree

from bpc_cli.core.optimisers import AnyOptimiser, descend

Free = TypeVar("Free", bound=PyTree)
Energy = Callable[[Any], Float[Array, ""]]


class Relaxation(NamedTuple):
    """What relaxing left.

    Attributes:
        free: what was free, relaxed.
        energies: the energy before each step, and last at the end; from the last step that was
            taken on, that at the end. Without a trace, before the first step and at the end alone.
            Where ends are expanded, those on the way are as exact as the first one is: to its own
            rounding.
        n_steps: how many steps were taken.
        observed: what was observed at the same times.
    """

    free: Any
    energies: Float[Array, " times"]
    n_steps: Integer[Array, ""]
    observed: PyTree


class _Moving(NamedTuple):
    """Where relaxing stands: steps taken, whether it has ended, and what is free."""

    n_done: Integer[Array, ""]
    is_still: Bool[Array, ""]
    free: PyTree
    optimiser_state: PyTree


def relax(
    free: Free,
    energy: Energy,
    optimiser: AnyOptimiser,
    n_steps: int,
    tolerance: float | Float[Array, ""] | None = None,
    observe: Callable[[Free, Free], PyTree] | None = None,
    energy_at_end: Energy | None = None,
    *,
    trace: bool = True,
) -> Relaxation:
    """Relax what is free in a sample by gradient steps on its energy: z ← z - step(∂F/∂z).

    Args:
        free: activities and whatever else is free.
        energy: the energy of what is free.
        optimiser: makes the steps, from a fresh state.
        n_steps: how many; with a tolerance, the most.
        tolerance: no step is taken where the root mean square of the gradient is below this; None:
            all are.
        observe: a function of what is free and of the energy's gradient, computed before each step
            and at the end.
        energy_at_end: the same energy, as it is computed at the end; None: as before each step.
        trace: whether energies on the way are computed, and anything is observed.
    """

    def goes_on(at: _Moving) -> Array:
        if tolerance is None:  # then all samples of a batch take the same steps
            return at.n_done < n_steps
        return (at.n_done < n_steps) & ~at.is_still

    def move(at: _Moving, gradient: PyTree) -> _Moving:
        moved = descend(optimiser, gradient, at.optimiser_state, at.free)
        if tolerance is None:
            return _Moving(at.n_done + 1, at.is_still, *moved)
        is_still = root_mean_square(gradient) < tolerance
        stay = (at.free, at.optimiser_state)
        moved = jax.tree.map(lambda old, new: jnp.where(is_still, old, new), stay, moved)
        return _Moving(at.n_done + jnp.where(is_still, 0, 1), is_still, *moved)

    start = _Moving(jnp.zeros((), jnp.int32), jnp.zeros((), bool), free, optimiser.init(free))
    at_end = energy_at_end or energy
    if not trace:
        first, gradient = jax.value_and_grad(energy)(free)
        end = start
        if n_steps:  # the first step is outside the loop, as the first energy comes with it
            end = move(start, gradient)
        if n_steps > 1:
            end = jax.lax.while_loop(goes_on, lambda at: move(at, jax.grad(energy)(at.free)), end)
        return Relaxation(end.free, jnp.stack([first, at_end(end.free)]), end.n_done, None)

    def look(free: Free, energy: Energy = energy) -> tuple[Free, tuple[Float[Array, ""], PyTree]]:
        value, gradient = jax.value_and_grad(energy)(free)
        return gradient, (value, None if observe is None else observe(free, gradient))

    def move_and_keep(carry: tuple[_Moving, PyTree]) -> tuple[_Moving, PyTree]:
        at, seen = carry
        gradient, now = look(at.free)
        seen = jax.tree.map(lambda rows, row: rows.at[at.n_done].set(row), seen, now)
        return move(at, gradient), seen

    empty = jax.tree.map(
        lambda row: jnp.zeros((n_steps + 1, *row.shape), row.dtype), jax.eval_shape(look, free)[1]
    )
    end, seen = jax.lax.while_loop(lambda carry: goes_on(carry[0]), move_and_keep, (start, empty))
    times = jnp.arange(n_steps + 1)

    def fill(rows: Array, row: Array) -> Array:
        is_taken = (times < end.n_done).reshape(-1, *[1] * row.ndim)
        return jnp.where(is_taken, rows, row)

    energies, observed = jax.tree.map(fill, seen, look(end.free, at_end)[1])
    return Relaxation(end.free, energies, end.n_done, observed)


def root_mean_square(gradient: PyTree[Float[Array, "..."]]) -> Float[Array, ""]:
    """Compute the root mean square of all entries of a gradient; 0 where there are none."""
    leaves = jax.tree.leaves(gradient)
    square = sum((jnp.sum(leaf**2) for leaf in leaves), jnp.zeros(()))
    return jnp.sqrt(square / max(sum(leaf.size for leaf in leaves), 1))
