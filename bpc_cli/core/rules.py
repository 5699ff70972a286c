"""The rules of a training step: algorithm, energy weights, optimisers, inference."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from bpc_cli.core.energy import LABEL_LOSSES, EnergyWeight
from bpc_cli.core.inference import REDUCTIONS, STARTS
from bpc_cli.core.optimisers import Optimiser
from bpc_cli.options.algorithms import ALGORITHMS


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
        label_loss: the amortiser's error at the label, an entry of `LABEL_LOSSES`.
        tolerance: at which root mean square of the samples' gradients relaxing ends; None: never.
        input_noise: standard deviation of the noise on training images, in [0, 1] pixels; None: no
            noise.
        shift: the most whole pixels by which training images are shifted.
        shift_share: how likely an image is to be shifted at all.
        image_shape: height, width and channels of an image; needed for a shift.
        labelled: which training examples' labels are known; None: all.
        label_decay: the weight of ½ ‖label‖² of a label that is free.
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
    label_loss: str = eqx.field(static=True, default="squared")
    tolerance: Float[Array, ""] | None = None
    input_noise: Float[Array, ""] | None = None
    labelled: Bool[Array, " examples"] | None = None
    label_decay: Float[Array, ""] | None = None
    shift: int = eqx.field(static=True, default=0)
    image_shape: tuple[int, int, int] | None = eqx.field(static=True, default=None)
    shift_share: Float[Array, ""] | None = None

    def inference_weights(self) -> tuple[EnergyWeight, EnergyWeight]:
        """Take the energy weights of the directions that activities relax on."""
        algorithm = ALGORITHMS[self.algorithm]
        return self._weights(algorithm.generator_infers, algorithm.amortiser_infers)

    def learning_weights(self) -> tuple[EnergyWeight, EnergyWeight]:
        """Take the energy weights of the directions whose networks learn."""
        algorithm = ALGORITHMS[self.algorithm]
        return self._weights(algorithm.generator_learns, algorithm.amortiser_learns)

    def _weights(self, forward: bool, backward: bool) -> tuple[EnergyWeight, EnergyWeight]:
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
    label_loss: str = "squared",
    tolerance: float | None = None,
    input_noise: float = 0.0,
    labelled: Bool[np.ndarray, " examples"] | None = None,
    label_decay: float = 0.0,
    shift: int = 0,
    shift_share: float = 1.0,
    image_shape: tuple[int, int, int] | None = None,
) -> Rules:
    """Make the rules of a run from plain numbers and names.

    Energy weights are one number, or one for each layer, label side first. `start` None is the
    algorithm's own. The others are those of `Rules`.

    Raises:
        ValueError: for an unknown algorithm, start, reduction or label_loss, or a shift of images
            of no shape.
    """
    if shift and image_shape is None:
        raise ValueError("to shift images takes their image_shape")
    for name, known in (
        (algorithm, ALGORITHMS),
        (start, (None, *STARTS)),
        (reduction, REDUCTIONS),
        (label_loss, LABEL_LOSSES),
    ):
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
        label_loss,
        _array_or_none(tolerance),
        _array_or_none(input_noise or None),
        None if labelled is None else jnp.asarray(labelled),
        _array_or_none(label_decay or None),
        shift,
        image_shape if shift else None,
        _array_or_none(shift_share if shift else None),
    )


def _array_or_none(number: float | None) -> Float[Array, ""] | None:
    return None if number is None else jnp.asarray(number, jnp.result_type(float))
