"""The energy landscape of a toy problem: XOR in two hidden units, for every algorithm."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bpc_cli.core.clamping import Clamping, Free, infer, inference_energy
from bpc_cli.core.learning import TrainState, make_state, train_step
from bpc_cli.core.optimisers import make_optimiser
from bpc_cli.core.rules import Rules, make_rules
from bpc_cli.options.algorithms import ALGORITHMS

INPUTS = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
LABELS = np.array([[0.0], [1.0], [1.0], [0.0]])
_REACH = 2.5
_POINTS = 61


class Landscape(NamedTuple):
    """The energy of one example's two hidden activities, around what a trained network relaxes to.

    Attributes:
        axis: the values that either activity takes.
        energy: the energy at each pair; the first activity varies along rows.
        path: the activities before each inference step and after the last.
        named: what the amortiser makes of all four inputs.
    """

    axis: Float[np.ndarray, " points"]
    energy: Float[np.ndarray, "points points"]
    path: Float[np.ndarray, "steps 2"]
    named: Float[np.ndarray, " inputs"]


def xor_landscapes(seed: int = 0, n_iters: int = 3_000) -> dict[str, Landscape]:
    """Train two hidden tanh units on XOR by every algorithm that infers, and map its energy.

    The example is input (1, -1) with its label, 1, clamped.

    Args:
        seed: fixes initial weights.
        n_iters: training iterations, on all four examples.
    """
    return {
        name: _map_energy(*_train(name, seed, n_iters))
        for name, algorithm in ALGORITHMS.items()
        if not algorithm.by_backpropagation
    }


def _train(algorithm: str, seed: int, n_iters: int) -> tuple[TrainState, Rules]:
    adam = make_optimiser("adam", 1e-2)
    weight = 1.0 if algorithm in ("hpc", "genpc") else 1e-2
    rules = make_rules(
        *(weight, 1.0, make_optimiser("sgd", 0.03), adam, 60),
        algorithm=algorithm,
        reduction="sum",
        seed=seed,
    )
    state = make_state(jax.random.PRNGKey(seed), (1, 2, 2), "tanh", adam, use_bias=True)

    @eqx.filter_jit
    def learn(state: TrainState) -> TrainState:
        arrays, static = eqx.partition(state, eqx.is_array)

        def step(_, arrays):
            after, _ = train_step(
                eqx.combine(arrays, static), jnp.asarray(INPUTS), jnp.asarray(LABELS), rules
            )
            return eqx.filter(after, eqx.is_array)

        return eqx.combine(jax.lax.fori_loop(0, n_iters, step, arrays), static)

    return learn(state), rules


def _map_energy(state: TrainState, rules: Rules) -> Landscape:
    networks = (state.generator, state.amortiser)
    clamping = Clamping(jnp.asarray(LABELS[2:3]), jnp.asarray(INPUTS[2:3]))
    start = clamping.begin(rules.start, *networks)

    def see(free: Free, _: Free) -> Float[Array, " 2"]:
        return free.activities[0][0]

    _, relaxation = infer(networks, clamping, start, rules, observe=see)
    path = np.asarray(relaxation.seen)
    reach = max(_REACH, 1.2 * float(np.abs(path).max()))
    axis = np.linspace(-reach, reach, _POINTS)

    def energy_at(first: Float[Array, ""], second: Float[Array, ""]) -> Float[Array, ""]:
        free = Free(None, [jnp.stack([first, second])[None]], None)
        return inference_energy(networks, clamping, free, rules)

    grid = jnp.asarray(axis, jnp.result_type(float))
    energy = jax.jit(jax.vmap(jax.vmap(energy_at, (None, 0)), (0, None)))(grid, grid)
    named = state.amortiser(jnp.asarray(INPUTS))[:, 0]
    return Landscape(axis, np.asarray(energy), path, np.asarray(named))
