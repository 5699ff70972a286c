"""Inference: initialising the hidden activities and relaxing them on the energy."""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float

from bpc_cli.networks import Amortiser
from bpc_cli.optimisers import Optimiser

Activities = list[Float[Array, "batch width"]]


def amortise(
    amortiser: Amortiser, image: Float[Array, "batch image"]
) -> tuple[Activities, Float[Array, "batch label"]]:
    """Initialise the hidden activities by one bottom-up pass.

    Returns:
        Hidden activities z_0, z_1, ... (label side first, before the activation), and the
        pass's output, the predicted label.
    """
    bottom_up = [image]
    for index in reversed(range(amortiser.depth)):
        bottom_up.append(amortiser.predict(index, bottom_up[-1]))
    label, *activities = reversed(bottom_up[1:])
    return activities, label


def relax(
    activities: Activities,
    energy: Callable[[Activities], Float[Array, ""]],
    optimiser: Optimiser,
    n_steps: int,
) -> tuple[Activities, Float[Array, " n_steps"]]:
    """Relax the activities by gradient steps on an energy whose other arguments are clamped.

    z ← z - step(∂F/∂z), `n_steps` times, with a fresh optimiser state.

    Returns:
        The relaxed activities, and the energy before each step.
    """

    def step(carry, _):
        activities, optimiser_state = carry
        value, gradient = jax.value_and_grad(energy)(activities)
        activities, optimiser_state = optimiser.update(gradient, optimiser_state, activities)
        return (activities, optimiser_state), value

    (activities, _), trace = jax.lax.scan(
        step, (activities, optimiser.init(activities)), length=n_steps
    )
    return activities, trace
