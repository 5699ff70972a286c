"""Inference: initialising what is free in a sample's states, and relaxing it on the energy."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from bpc_cli.core.clamping import Clamping, States, check_ends
from bpc_cli.core.energy import EnergyWeights, energy, half_square_norm
from bpc_cli.core.expansion import NOTHING_EXPANDED, Expansions, expand_ends
from bpc_cli.core.models import Model
from bpc_cli.core.optimisers import AnyOptimiser, check_optimiser
from bpc_cli.core.relaxation import Relaxation, relax
from bpc_cli.options.names import INITS

Activities = list[Float[Array, "..."]]


class Inference(eqx.Module):
    """How activities are initialised and relaxed. Numbers are traced; names and counts compiled in.

    Attributes:
        weights: the energy weights of the directions whose errors activities relax on.
        optimiser: makes the steps, from a fresh state for every sample: any of optax, or one of
            `make_optimiser`, whose numbers are traced.
        n_steps: gradient steps; with a tolerance, the most.
        init: what activities are initialised by, one of `names.INITS`.
        tolerance: relaxing ends when the root mean square of a sample's gradient is below this;
            None: after all steps.
        label_precision: the prior precision of a label that is free, the weight of its ½ ‖label‖²;
            None: no prior.
        latent_precision: the prior precision of latent units, likewise, and of a bimodal model's
            top state.
    """

    weights: EnergyWeights
    optimiser: AnyOptimiser
    n_steps: int = eqx.field(static=True)
    init: str = eqx.field(static=True, default="amortised")
    tolerance: Float[Array, ""] | None = None
    label_precision: Float[Array, ""] | None = None
    latent_precision: Float[Array, ""] | None = None

    def __check_init__(self):
        check_optimiser(self.optimiser)
        if self.init not in INITS:
            raise ValueError(f"unknown init '{self.init}'; known: {', '.join(INITS)}")

    def energy(
        self,
        model: Model,
        clamping: Clamping,
        free: States,
        expansions: Expansions = NOTHING_EXPANDED,
    ) -> Float[Array, ""]:
        """Compute the energy of a sample that its activities relax on."""
        value = energy(model, clamping.complete(free).layers, self.weights, expansions)
        if self.latent_precision is not None and model.top:
            value += self.latent_precision * half_square_norm(free.activities[model.top - 1])
        if clamping.label_known is None:
            return value
        unknown = jnp.where(clamping.label_known, 0, free.label)
        if self.label_precision is not None:
            value += self.label_precision * half_square_norm(unknown[: model.n_classes])
        if self.latent_precision is not None and model.n_latent:
            value += self.latent_precision * half_square_norm(unknown[model.n_classes :])
        return value

    def expand(
        self, model: Model, clamping: Clamping, initial: States, batch_size: int
    ) -> Expansions:
        """Expand the energy of a sample at ends that are clamped, where steps then cost less."""
        of_label = self.weights.forward if model.top else self.weights.backward
        return expand_ends(
            model,
            clamping,
            initial,
            self.n_steps,
            batch_size,
            image=self.weights.forward is not None,
            label=of_label is not None,
        )


class Inferred(NamedTuple):
    """A sample's states after inference.

    Attributes:
        states: all states.
        initial: what was free, as it was initialised.
        relaxation: how it relaxed.
    """

    states: States
    initial: States
    relaxation: Relaxation


def infer(
    model: Model,
    clamping: Clamping,
    inference: Inference,
    key: PRNGKeyArray | None = None,
    observe: Callable[[States, States], PyTree] | None = None,
    batch_size: int = 1,
    *,
    trace: bool = True,
) -> Inferred:
    """Initialise what is free in a sample's states, and relax it on the energy.

    Args:
        model: the model.
        clamping: what is known.
        inference: how activities are initialised and relaxed.
        key: fixes noise.
        observe: a function of what is free and of the energy's gradient, computed before each step
            and at the end.
        batch_size: how many samples are inferred at once by `jax.vmap`: the more there are, the
            sooner `expansion` pays, whose products of weights are then common to all.
        trace: whether energies between the first and the last are computed.

    Raises:
        ValueError: if activities are to be noise and there is no key, or what is clamped is not of
            the model's shapes.
    """
    check_ends(model, clamping.label, clamping.image)
    initial = initialise(model, clamping, inference.init, key)
    expansions = inference.expand(model, clamping, initial, batch_size)
    relaxation = relax(
        initial,
        lambda free: inference.energy(model, clamping, free, expansions),
        inference.optimiser,
        inference.n_steps,
        inference.tolerance,
        observe,
        # Learning computes it so as well, and it has all digits however far the energy fell.
        energy_at_end=lambda free: inference.energy(model, clamping, free),
        trace=trace,
    )
    return Inferred(clamping.complete(relaxation.free), initial, relaxation)


def infer_each(
    model: Model,
    clampings: Clamping,
    inference: Inference,
    key: PRNGKeyArray | None = None,
    observe: Callable[[States, States], PyTree] | None = None,
    *,
    trace: bool = True,
) -> Inferred:
    """Infer each sample of a batch, on its own, as `infer` does one."""
    check_ends(model, clampings.label, clampings.image, of_batch=True)
    n = len(clampings.image)
    keys = None if key is None else jax.random.split(key, n)

    def infer_one(clamping: Clamping, key: PRNGKeyArray | None) -> Inferred:
        return infer(model, clamping, inference, key, observe, n, trace=trace)

    return jax.vmap(infer_one)(clampings, keys)


def initialise(
    model: Model, clamping: Clamping, how: str, key: PRNGKeyArray | None = None
) -> States:
    """Initialise what is free in a sample's states.

    An unknown label is initialised with what the amortiser predicts of the image, or, where
    activities are not amortised, with all classes alike: at a label of zeros, rectified activities
    would not move. Latent units are initialised in the same way, or at 0 beside a label.

    Args:
        model: the model.
        clamping: what is known, and what an unknown image is initialised with.
        how: "amortised" or "generative" (a feedforward pass of either direction), "zeros", or
            "noise" (standard normal).
        key: fixes the noise.

    Raises:
        ValueError: if `how` is not one of these, or there is no key for noise.
    """
    label = clamping.label
    if clamping.label_known is not None:
        guess = _indifferent(model, label)
        if how == "amortised":
            guess = model.feed_up(clamping.image)[0]
        label = jnp.where(clamping.label_known, label, guess)
    return States(
        None if clamping.label_known is None else label,
        init_activities(model, how, label, clamping.image, key),
        None if clamping.image_known is None else clamping.image,
    )


def _indifferent(model: Model, top: Float[Array, " top"]) -> Float[Array, " top"]:
    """Make a top state that speaks for no class; of latent units alone, one that is not 0."""
    guess = jnp.full_like(top, 1 / (model.n_classes or model.n_latent))
    return guess.at[model.n_classes :].set(0) if model.n_latent and model.n_classes else guess


def init_activities(
    model: Model,
    how: str,
    label: Float[Array, " label"],
    image: Float[Array, "*image"],
    key: PRNGKeyArray | None = None,
) -> Activities:
    """Initialise a sample's activities z_0, z_1, …, as `initialise` says."""
    if how == "amortised":
        return model.feed_up(image)[1:]
    if how == "generative":
        return model.feed_down(label)[:-1]
    shapes = model.state_shapes[1:-1]
    if how == "zeros":
        return [jnp.zeros(shape, image.dtype) for shape in shapes]
    if how != "noise" or key is None:
        raise ValueError(
            f"activities cannot be initialised by '{how}'; known: {', '.join(INITS)}, and noise "
            "needs a key"
        )
    keys = jax.random.split(key, max(len(shapes), 1))
    return [
        jax.random.normal(own, shape, image.dtype) for own, shape in zip(keys, shapes, strict=False)
    ]


def square_norm(activities: Activities) -> Float[Array, ""]:
    """Compute ‖z‖², over all layers."""
    return sum((jnp.sum(activity**2) for activity in activities), jnp.zeros(()))


def relative_distance(these: Activities, those: Activities) -> Float[Array, ""]:
    """Compute ‖these - those‖ / ‖those‖ over all layers; 0 where those are 0."""
    apart = square_norm([a - b for a, b in zip(these, those, strict=True)])
    norm = square_norm(those)
    return jnp.sqrt(jnp.where(norm > 0, apart / jnp.where(norm > 0, norm, 1), 0))
