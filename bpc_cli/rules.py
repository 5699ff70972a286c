"""The rules of a training step: algorithm, energy weights, optimisers, inference."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from bpc_cli.algorithms import ALGORITHMS
from bpc_cli.energy import EnergyWeight
from bpc_cli.inference import REDUCTIONS, STARTS
from bpc_cli.optimisers import Optimiser


class Rules(eqx.Module):
    """How a step infers and learns. Numbers here are traced; names and counts are compiled in.

    Attributes:
        forward_energy_weight: α_f, the weight of the generator's prediction errors.
        backward_energy_weight: α_b, the weight of the amortiser's prediction errors.
        activity_optimiser: relaxes the hidden activities, from a fresh state for every batch.
        parameter_optimiser: updates each network, with a state of its own for each.
        n_inference_steps: gradient steps on the activities per training step.
        algorithm: an entry of `ALGORITHMS`.
        start: what activities start from, an entry of `STARTS`.
        reduction: whether activities follow the gradient of the batch's "mean" energy, at rate/B
            per sample, or of its "sum".
        key: fixes noise, together with a step's examples.
    """

    forward_energy_weight: Float[Array, "*depth"]
    backward_energy_weight: Float[Array, "*depth"]
    activity_optimiser: Optimiser
    parameter_optimiser: Optimiser
    n_inference_steps: int = eqx.field(static=True)
    algorithm: str = eqx.field(static=True)
    start: str = eqx.field(static=True)
    reduction: str = eqx.field(static=True)
    key: PRNGKeyArray

    def energy_weights(self, forward: bool, backward: bool) -> tuple[EnergyWeight, EnergyWeight]:
        """Take the energy weights of the directions that take part, and None for the other."""
        return (
            self.forward_energy_weight if forward else None,
            self.backward_energy_weight if backward else None,
        )


def make_rules(
    forward_energy_weight: float | Sequence[float],
    backward_energy_weight: float | Sequence[float],
    activity_optimiser: Optimiser,
    parameter_optimiser: Optimiser,
    n_inference_steps: int,
    *,
    algorithm: str = "bpc",
    start: str | None = None,
    reduction: str = "mean",
    seed: int = 0,
) -> Rules:
    """Make the rules of a run from plain numbers and names.

    Energy weights are one number, or one for each layer, label side first. `start` None is the
    algorithm's own.

    Raises:
        ValueError: for an unknown algorithm, start or reduction.
    """
    for name, known in ((algorithm, ALGORITHMS), (start, (None, *STARTS)), (reduction, REDUCTIONS)):
        if name not in known:
            raise ValueError(f"unknown '{name}'; known: {', '.join(map(str, known))}")
    return Rules(
        jnp.asarray(forward_energy_weight, jnp.result_type(float)),
        jnp.asarray(backward_energy_weight, jnp.result_type(float)),
        activity_optimiser,
        parameter_optimiser,
        n_inference_steps,
        algorithm,
        start or ALGORITHMS[algorithm].start,
        reduction,
        jax.random.PRNGKey(seed),
    )
