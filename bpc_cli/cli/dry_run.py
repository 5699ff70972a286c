"""What `--dry-run` prints: what a run would do, with which data and model, and its costs."""

import itertools
import math
import os
from collections.abc import Sequence
from pathlib import Path

import equinox as eqx
import jax

from bpc_cli.cli.build import build_inference, build_training
from bpc_cli.cli.limits import memory_needed, state_shapes
from bpc_cli.core.learning import TrainState
from bpc_cli.core.models import Model
from bpc_cli.evaluation.cost import flops_per_step
from bpc_cli.options.algorithms import ALGORITHMS
from bpc_cli.options.schema import TrainConfig
from bpc_cli.runs.device import device_kind, device_memory
from bpc_cli.runs.directory import is_finished
from bpc_cli.runs.plan import Plan

_MOST_LISTED = 3  # states of the same shape


def describe(config: TrainConfig, plan: Plan, directory: Path, iteration: int) -> str:
    """Describe a run that is not made.

    Args:
        config: its checked config.
        plan: what it is to do.
        directory: where its output would go.
        iteration: the last one that is done already.

    Raises:
        UserError: if the weights do not fit the optimiser, or optax does not have it.
    """
    state = state_shapes(config, plan)
    return "\n".join(
        f"{name:<11} {text}"
        for name, text in (
            ("data", _data(plan)),
            *_model(state.model, len(plan.seeds)),
            ("algorithm", _algorithm(config)),
            ("cost", _cost(config, plan, state)),
            ("memory", _memory(config, plan)),
            ("steps", _steps(plan, iteration)),
            ("directory", _directory(directory, iteration, plan.schedule.n_iters)),
        )
    )


def _data(plan: Plan) -> str:
    dataset = plan.dataset
    return (
        f"{dataset.name}: {plan.n_examples:,} training images of "
        f"{_shape(dataset.image_shape)} in {dataset.n_classes} classes, "
        f"{len(dataset.test_images):,} to test on"
    )


def _model(model: Model, n_seeds: int) -> list[tuple[str, str]]:
    sizes = [_shape(shape) for shape in model.state_shapes]
    to_top, below = _in_short(sizes[: model.top]), _in_short(sizes[model.top :])
    down = " ← ".join([*to_top, " → ".join(below)])
    up = " → ".join([*to_top, " ← ".join(below)]) if to_top else " → ".join(reversed(below))
    counts = [_n_parameters(layers) for layers in (model.generator, model.amortiser)]
    ensemble = f", in each of {n_seeds} models" if n_seeds > 1 else ""
    return [
        ("generator", f"{down}: {counts[0]:,} parameters"),
        ("amortiser", f"{up}: {counts[1]:,} parameters"),
        ("parameters", f"{sum(counts):,}{ensemble}"),
    ]


def _shape(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def _in_short(sizes: Sequence[str]) -> list[str]:
    """Count sizes that many layers have one after another, such as "30 × 64"."""
    runs = [(size, len(list(alike))) for size, alike in itertools.groupby(sizes)]
    return [
        each for size, n in runs for each in ([f"{n} × {size}"] if n > _MOST_LISTED else [size] * n)
    ]


def _n_parameters(layers: object) -> int:
    leaves = jax.tree.leaves(eqx.filter(layers, lambda leaf: hasattr(leaf, "dtype")))
    return sum(math.prod(leaf.shape) for leaf in leaves)


def _algorithm(config: TrainConfig) -> str:
    algorithm, optim = ALGORITHMS[config.algorithm.name], config.optim
    words = f"{config.algorithm.name}: {algorithm.about}"
    if not algorithm.by_backpropagation:
        inference = build_inference(config)
        n_steps = f"{inference.n_steps} inference step{'' if inference.n_steps == 1 else 's'}"
        words += f"; {n_steps} by {optim.activity} at {optim.activity_lr:g}"
    return f"{words}; weights by {optim.param} at {optim.param_lr:g}"


def _cost(config: TrainConfig, plan: Plan, state: TrainState) -> str:
    training = build_training(config, config.seed, plan.schedule.n_iters)
    flops = flops_per_step(state, training.inference, training.learning, plan.batch_size)
    flops *= len(plan.seeds)
    return (
        f"{flops / 1e6:,.1f} MFLOP a step by the compiler's count, "
        f"{flops * plan.schedule.n_iters / 1e12:,.3g} TFLOP in all"
    )


def _memory(config: TrainConfig, plan: Plan) -> str:
    needed, there_is = memory_needed(config, plan), device_memory(plan.n_devices)
    each = " on each" if plan.n_devices > 1 else ""
    return (
        f"{needed / 2**20:,.1f} MiB at least{each}, of {there_is / 2**20:,.0f} "
        f"({device_kind(plan.n_devices)})"
    )


def _steps(plan: Plan, iteration: int) -> str:
    schedule = plan.schedule
    epochs = schedule.n_iters / (plan.n_examples // plan.batch_size)
    done = f", {iteration:,} of them done" if iteration else ""
    return (
        f"{schedule.n_iters:,} of {plan.batch_size:,} images, {epochs:,.1f} epochs{done}; "
        f"a test every {schedule.test_every:,}"
    )


def _directory(directory: Path, iteration: int, n_iters: int) -> str:
    where = os.path.relpath(directory)
    if iteration == n_iters and is_finished(directory):
        return f"{where}, which holds this run, finished"
    return f"{where}, to be resumed after iteration {iteration}" if iteration else where
