"""The energy landscape of a toy problem: XOR in two hidden units, for every algorithm."""

from collections.abc import Mapping
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from bpc_cli.core.algorithms import inference_weights, learning_weights
from bpc_cli.core.architectures import Mlp
from bpc_cli.core.clamping import Clamping, States
from bpc_cli.core.inference import Inference, infer
from bpc_cli.core.learning import Batch, Learning, TrainState, make_state, train_step
from bpc_cli.core.models import Model, make_model
from bpc_cli.core.optimisers import make_optimiser
from bpc_cli.diagnostics import Diagnosis, Subject
from bpc_cli.options.algorithms import ALGORITHMS, Algorithm

NEEDS = ()
RELAXES = ()
INPUTS = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
LABELS = np.array([[0.0], [1.0], [1.0], [0.0]])
_REACH = 2.5
_POINTS = 61


class Landscape(NamedTuple):
    """The energy of one example's two hidden activities, around what a trained model relaxes to.

    Attributes:
        axis: the values that either activity takes.
        energy: the energy at each pair; the first activity varies along rows.
        path: the activities before each inference step and after the last.
        predicted: what the amortiser predicts of all four inputs.
    """

    axis: Float[np.ndarray, " points"]
    energy: Float[np.ndarray, "points points"]
    path: Float[np.ndarray, "times 2"]
    predicted: Float[np.ndarray, " inputs"]


def xor_landscapes(seed: int = 0, n_iters: int = 3_000) -> dict[str, Landscape]:
    """Train two hidden tanh units on XOR by every algorithm that infers, and map its energy.

    The example is input (1, -1) with its label, 1, clamped.

    Args:
        seed: fixes initial weights.
        n_iters: training iterations, on all four examples.
    """
    return {
        name: _map_energy(*_train(algorithm, seed, n_iters))
        for name, algorithm in ALGORITHMS.items()
        if not algorithm.by_backpropagation
    }


def diagnose(subject: Subject) -> Diagnosis:
    """Map the energy of XOR: of algorithms, whatever the subject's own model."""
    landscapes = xor_landscapes()
    numbers = {
        name: {"path": each.path.tolist(), "named": each.predicted.tolist()}
        for name, each in landscapes.items()
    }
    lines = [
        "of the algorithms, not of this checkpoint: a network of two hidden units, trained on XOR "
        "by each that infers"
    ]
    return Diagnosis(numbers, lines, {"landscape.png": draw(landscapes)})


def draw(landscapes: Mapping[str, Landscape]) -> Figure:
    """Draw each algorithm's energy over two hidden activities, with the way that they relax."""
    figure = Figure(figsize=(3.6 * len(landscapes), 3.9), layout="constrained")
    for axes, (name, each) in zip(
        figure.subplots(1, len(landscapes), squeeze=False)[0], landscapes.items(), strict=True
    ):
        low = each.energy.min()
        levels = low + np.ptp(each.energy) * np.linspace(0, 1, 24) ** 2
        axes.contourf(each.axis, each.axis, each.energy.T, levels, cmap="Greys_r")
        axes.contour(each.axis, each.axis, each.energy.T, levels, colors="0.4", linewidths=0.4)
        axes.plot(*each.path.T, "-", color="C1")
        axes.plot(*each.path[0], "o", color="C1", mec="black", label="initial")
        axes.plot(*each.path[-1], "*", color="C1", mec="black", ms=13, label="relaxed")
        axes.set(title=name, xlabel="first hidden activity", ylabel="second")
        axes.set_aspect("equal")
    figure.axes[0].legend(loc="upper left", fontsize=8)
    figure.suptitle(
        "Not this checkpoint: two hidden units trained on XOR by each algorithm. "
        "Energy of input (1, -1), label clamped"
    )
    return figure


def _train(algorithm: Algorithm, seed: int, n_iters: int) -> tuple[Model, Inference]:
    # Where the amortiser's errors do not take part in inference, nothing is to be weighed.
    forward = 1e-2 if algorithm.amortiser_infers else 1.0
    inference = Inference(
        inference_weights(algorithm, forward, 1.0),
        make_optimiser("sgd", 0.03),
        n_steps=60,
        init=algorithm.init,
    )
    learning = Learning(learning_weights(algorithm, forward, 1.0), make_optimiser("adam", 1e-2))
    model = make_model(
        Mlp(2, 2, "tanh", use_bias=True),
        jax.random.PRNGKey(seed),
        n_classes=1,
        image_shape=(1, 2, 1),
    )
    batch = Batch(
        jnp.asarray(LABELS, jnp.result_type(float)), jnp.asarray(INPUTS, jnp.result_type(float))
    )

    @eqx.filter_jit
    def learn(state: TrainState) -> TrainState:
        arrays, static = eqx.partition(state, eqx.is_array)

        def step(_, arrays):
            after, _ = train_step(eqx.combine(arrays, static), batch, inference, learning)
            return eqx.filter(after, eqx.is_array)

        return eqx.combine(jax.lax.fori_loop(0, n_iters, step, arrays), static)

    return learn(make_state(model, learning)).model, inference


def _map_energy(model: Model, inference: Inference) -> Landscape:
    label, image = (jnp.asarray(each[2], jnp.result_type(float)) for each in (LABELS, INPUTS))
    clamping = Clamping(label, image)

    def see(free: States, _: States) -> Float[Array, " 2"]:
        return free.activities[0]

    path = np.asarray(infer(model, clamping, inference, observe=see).relaxation.observed)
    reach = max(_REACH, 1.2 * float(np.abs(path).max()))
    axis = np.linspace(-reach, reach, _POINTS)

    def energy_at(first: Float[Array, ""], second: Float[Array, ""]) -> Float[Array, ""]:
        return inference.energy(model, clamping, States(None, [jnp.stack([first, second])], None))

    grid = jnp.asarray(axis, jnp.result_type(float))
    energy = jax.jit(jax.vmap(jax.vmap(energy_at, (None, 0)), (0, None)))(grid, grid)
    inputs = jnp.asarray(INPUTS, jnp.result_type(float))
    predicted = jax.vmap(lambda each: model.feed_up(each)[0])(inputs)[:, 0]
    return Landscape(axis, np.asarray(energy), path, np.asarray(predicted))
