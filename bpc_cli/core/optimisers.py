"""Optimisers: optax's own, or one by name whose real-valued arguments are traced.

Whatever takes an optimiser takes any `optax.GradientTransformation` as it is. Its numbers are
compiled in, unless `optax.inject_hyperparams` keeps them in its state. An `Optimiser` is the same
as data: it can be an argument of a compiled function, which builds the optax transformation
inside. Two runs that differ only in learning rates then share one compilation.
"""

import dataclasses
import functools
import inspect
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

# Needs the loss's own value at every update, which local learning does not have.
_NEEDS_LOSS_VALUE = {"lbfgs"}


class Optimiser(eqx.Module):
    """An optax optimiser, its learning rate or schedule, and its other arguments.

    It has an `optax.GradientTransformation`'s two methods.

    Attributes:
        name: an entry of `optimiser_names()`.
        learning_rate: the rate; under a schedule, the one that it starts from or peaks at.
        arguments: the optimiser's other arguments; real numbers among them are traced.
        schedule: an entry of `schedule_names()`, or None for a constant rate.
        schedule_arguments: the schedule's other arguments; real numbers among them are traced.
        clip: what the norm of all gradients together is brought down to first; None: nothing.
        scale: what gradients are multiplied by before anything else; None: nothing.
    """

    name: str = eqx.field(static=True)
    learning_rate: Array | float
    arguments: dict[str, Any]
    schedule: str | None = eqx.field(static=True)
    schedule_arguments: dict[str, Any]
    clip: Array | float | None = None
    scale: Array | float | None = None

    def init(self, params: PyTree[Array]) -> optax.OptState:
        """Make the optimiser's initial state for these parameters."""
        return self._transformation().init(params)

    def update(
        self, gradients: PyTree[Array], state: optax.OptState, params: PyTree[Array]
    ) -> tuple[PyTree[Array], optax.OptState]:
        """Turn gradients into updates, which `optax.apply_updates` adds to the parameters.

        Returns:
            The updates and the new state.
        """
        return self._transformation().update(gradients, state, params)

    def _transformation(self) -> optax.GradientTransformation:
        rate = self.learning_rate
        if self.schedule is not None:
            make_schedule = getattr(optax, self.schedule)
            rate = make_schedule(**_rate_arguments(make_schedule, rate), **self.schedule_arguments)
        optimiser = getattr(optax, self.name)(rate, **self.arguments)
        if self.clip is not None:
            optimiser = optax.chain(optax.clip_by_global_norm(self.clip), optimiser)
        if self.scale is not None:
            optimiser = optax.chain(optax.scale(self.scale), optimiser)
        return optimiser


AnyOptimiser = Optimiser | optax.GradientTransformation


def check_optimiser(optimiser: Any) -> None:
    """Check that something is an optimiser.

    Raises:
        ValueError: if it is not.
    """
    if not all(callable(getattr(optimiser, method, None)) for method in ("init", "update")):
        raise ValueError(
            f"an optimiser must be an optax.GradientTransformation, such as optax.adam(1e-3), or "
            f"one of make_optimiser, not {optimiser!r}"
        )


def descend(
    optimiser: AnyOptimiser,
    gradients: PyTree[Array],
    state: optax.OptState,
    params: PyTree[Array],
) -> tuple[PyTree[Array], optax.OptState]:
    """Take one step of an optimiser: return the new parameters and the new state."""
    updates, state = optimiser.update(gradients, state, params)
    return optax.apply_updates(params, updates), state


def make_optimiser(
    name: str,
    learning_rate: float,
    arguments: Mapping[str, Any] | None = None,
    schedule: str | None = None,
    schedule_arguments: Mapping[str, Any] | None = None,
    *,
    n_steps: int | None = None,
) -> Optimiser:
    """Make an optimiser from names and plain numbers, checking that optax accepts them.

    Args:
        name: an entry of `optimiser_names()`, such as "adam".
        learning_rate: the rate; a schedule takes it as its `peak_value`, or else its `init_value`.
        arguments: what else `optax.<name>` takes, by keyword.
        schedule: an entry of `schedule_names()`, or None for a constant rate.
        schedule_arguments: what else `optax.<schedule>` takes, by keyword.
        n_steps: a schedule's `decay_steps` or `transition_steps`, where these are not set.

    Raises:
        ValueError: for an unknown name, or arguments that optax does not take.
    """
    if name not in optimiser_names():
        raise ValueError(f"unknown optimiser '{name}'; known: {', '.join(optimiser_names())}")
    if schedule is not None and schedule not in schedule_names():
        raise ValueError(f"unknown schedule '{schedule}'; known: {', '.join(schedule_names())}")
    if schedule is None and schedule_arguments:
        raise ValueError("schedule arguments are given, but no schedule")
    extra = dict(schedule_arguments or {})
    if schedule is not None and n_steps is not None:
        for parameter in inspect.signature(getattr(optax, schedule)).parameters:
            if parameter in ("decay_steps", "transition_steps"):
                extra.setdefault(parameter, n_steps)
    plain = Optimiser(name, float(learning_rate), dict(arguments or {}), schedule, extra)
    traced = jax.tree.map(_as_array_if_real, plain)
    try:
        return _if_optax_accepts(traced)
    except jax.errors.ConcretizationTypeError:
        # Some schedules compare their numbers in Python: these are compiled in.
        return _if_optax_accepts(plain)


def scaled(optimiser: Optimiser, factor: float) -> Optimiser:
    """Make an optimiser that multiplies gradients by a factor before anything else."""
    scale = jnp.asarray(factor, jnp.result_type(float))
    return dataclasses.replace(optimiser, scale=scale)


def clipped(optimiser: Optimiser, norm: float) -> Optimiser:
    """Make an optimiser that first brings the norm of all gradients together down to a number."""
    return dataclasses.replace(optimiser, clip=jnp.asarray(norm, jnp.result_type(float)))


@functools.cache
def optimiser_names() -> list[str]:
    """List the names of optax's optimisers: its public functions of a learning rate."""
    return [
        name
        for name, function in inspect.getmembers(optax, inspect.isfunction)
        if not name.startswith(("_", "scale_by_"))
        and name not in _NEEDS_LOSS_VALUE
        and next(iter(inspect.signature(function).parameters), None) == "learning_rate"
    ]


@functools.cache
def schedule_names() -> list[str]:
    """List the names of optax's schedules that one learning rate can fill."""
    return [
        name
        for name, function in inspect.getmembers(optax, inspect.isfunction)
        if {"init_value", "peak_value"} & set(inspect.signature(function).parameters)
        and (name.endswith("_schedule") or name == "exponential_decay")
    ]


def _rate_arguments(make_schedule, rate: Array | float) -> dict[str, Array | float]:
    parameters = inspect.signature(make_schedule).parameters
    if "peak_value" not in parameters:
        return {"init_value": rate}
    return {"peak_value": rate} | ({"init_value": 0.0} if "init_value" in parameters else {})


def _as_array_if_real(value: Any) -> Any:
    return jnp.asarray(value, jnp.result_type(float)) if isinstance(value, float) else value


def _if_optax_accepts(optimiser: Optimiser) -> Optimiser:
    def one_update(optimiser: Optimiser):
        params = {"w": jnp.zeros((2, 2))}
        return descend(optimiser, params, optimiser.init(params), params)

    try:
        eqx.filter_eval_shape(one_update, optimiser)
    except jax.errors.ConcretizationTypeError:
        raise
    except Exception as error:  # whatever optax raises for arguments that it does not take
        described = f"optimiser '{optimiser.name}'"
        if optimiser.schedule is not None:
            described += f" with schedule '{optimiser.schedule}'"
        reason = str(error).splitlines()[0]
        raise ValueError(f"optax does not accept the arguments of {described}: {reason}") from error
    return optimiser
