"""What an evaluation is to do, as its options say."""

import dataclasses
from collections.abc import Collection
from typing import NamedTuple

import jax.numpy as jnp

from bpc_cli import diagnostics
from bpc_cli.cli.build import build_inference
from bpc_cli.core.inference import Inference
from bpc_cli.core.langevin import Langevin
from bpc_cli.data.datasets import Dataset
from bpc_cli.diagnostics import Sampling
from bpc_cli.errors import UserError
from bpc_cli.evaluation.convergence import MOST_STEPS
from bpc_cli.evaluation.results import count_steps
from bpc_cli.options.algorithms import ALGORITHMS
from bpc_cli.options.check import unknown_choice
from bpc_cli.options.evaluation_schema import EvalConfig
from bpc_cli.options.schema import TrainConfig

# Of what a diagnostic needs, what to do where a run has it not.
_ADVICE = {
    "inference": "this run makes none: choose others, or inference.n_steps",
    "a label": "a run of mode=unsupervised has none: choose others",
    "latent units": "this run has none: choose others, or train with mode=hybrid or unsupervised",
    "samples": "none are asked for: say how many, as by samples=1000",
}


class EvaluationPlan(NamedTuple):
    """What is tested of each seed's model, besides its feedforward passes.

    Attributes:
        inference: how activities relax in tests by inference.
        lowest_energy: whether energy-based classification is one of them.
        diagnostics: the names of those to make.
        followed: how activities relax in diagnostics, with the most steps that these take.
        to_convergence: whether they take only those that it takes to converge.
        figure_formats: formats of figures beside PNG.
        sampling: how images are sampled.
    """

    inference: Inference
    lowest_energy: bool
    diagnostics: list[str]
    followed: Inference
    to_convergence: bool
    figure_formats: list[str]
    sampling: Sampling

    def describe(self, dataset: Dataset) -> str:
        """Say what is computed, which may take minutes."""
        tests = ["feedforward"]
        if self.inference.n_steps:
            tests.append(f"by inference ({count_steps(self.inference.n_steps)})")
        if self.inference.n_steps and self.lowest_energy:
            tests.append(f"by the energy of each of {dataset.n_classes} labels")
        line = f"testing {len(dataset.test_images):,} images of {dataset.name}: {', '.join(tests)}"
        return "; diagnostics: ".join([line, *filter(None, [", ".join(self.diagnostics)])])


def plan_evaluation(trained: TrainConfig, config: EvalConfig) -> EvaluationPlan:
    """Plan what to test of each seed's model, as options say.

    Raises:
        UserError: for an optimiser that optax does not have, or diagnostics that there are not.
    """
    inference = followed = build_test_inference(trained, config)
    infers = inference.n_steps > 0
    to_convergence = infers and config.inference.n_steps is None
    if to_convergence:
        longest = dataclasses.replace(config.inference, n_steps=MOST_STEPS)
        followed = build_test_inference(trained, dataclasses.replace(config, inference=longest))
    lowest_energy = config.lowest_energy
    has = {
        "inference": infers,
        "a label": trained.mode != "unsupervised",
        "latent units": trained.model.latent > 0,
        "samples": config.samples > 0,
    }
    if lowest_energy and not has["a label"]:
        raise UserError(
            "lowest_energy=true tests a label, and a run of mode=unsupervised has none: leave it "
            "at null"
        )
    if lowest_energy is None:
        lowest_energy = has["a label"] and not ALGORITHMS[trained.algorithm.name].amortiser_learns
    asked = [*config.diagnostics, *["sampling"] * (config.samples > 0)]
    return EvaluationPlan(
        inference,
        lowest_energy,
        choose_diagnostics(asked, {name for name in has if has[name]}),
        followed,
        to_convergence,
        config.plots.format,
        plan_sampling(trained, config),
    )


def plan_sampling(trained: TrainConfig, config: EvalConfig) -> Sampling:
    """Plan how images are sampled.

    Raises:
        UserError: if samples are asked for that cannot be had.
    """
    steps = config.sampling
    if config.samples:
        _check_sampling(config)
        _check_distribution(trained, steps.label)
    langevin = build_langevin(trained, config)
    return Sampling(config.samples, langevin, steps.burn_in, steps.label == "clamped")


def choose_diagnostics(asked: list[str], has: Collection[str]) -> list[str]:
    """List the diagnostics that are asked for; `all` leaves out what cannot be made.

    Args:
        asked: their names, or `all`.
        has: what the run has of what diagnostics need.

    Raises:
        UserError: if one does not exist, or is asked for by name and needs what the run has not.
    """
    known = diagnostics.names()
    for name in asked:
        if name not in (*known, "all"):
            raise UserError(unknown_choice("diagnostics", name, (*known, "all")))
    chosen = [name for name in known if {name, "all"} & set(asked)]
    for need, advice in _ADVICE.items():
        needing = [] if need in has else [n for n in chosen if need in diagnostics.needs(n)]
        if needing and "all" not in asked:
            raise UserError(f"diagnostics=[{','.join(needing)}] are of {need}, and {advice}")
        chosen = [name for name in chosen if name not in needing]
    return chosen


def _check_sampling(config: EvalConfig) -> None:
    """Reject numbers of steps, samples or test images that leave nothing to measure.

    Raises:
        UserError: saying which.
    """
    steps = config.sampling
    if steps.burn_in >= steps.n_steps:
        raise UserError(
            f"sampling.burn_in={steps.burn_in} must be below sampling.n_steps={steps.n_steps}"
        )
    if config.data.n_test == 1:
        raise UserError("data.n_test=1: samples are compared with two test images or more")
    if config.samples == 1:
        raise UserError("samples=1: a distance between distributions takes two samples or more")


def _check_distribution(trained: TrainConfig, label: str) -> None:
    """Reject energies whose exp(-energy) is no distribution.

    Predictions of one direction alone integrate to the same whatever the top state is, so that only
    a prior keeps it.

    Raises:
        UserError: saying what is missing.
    """
    name = trained.algorithm.name
    algorithm = ALGORITHMS[name]
    if not algorithm.generator_infers:
        raise UserError(
            f"samples: algorithm={name} has no energy of images to sample from: take bpc, hpc or "
            "genpc"
        )
    if label == "free" and trained.model.label_loss == "cross_entropy":
        raise UserError(
            "sampling.label=free: a label that is free has no least cross-entropy; choose clamped"
        )
    if algorithm.amortiser_infers:
        return
    is_free = trained.model.latent > 0 or trained.model.name == "bimodal"
    if is_free and not trained.inference.latent_precision:
        raise UserError(
            f"samples: under {name} nothing but a prior keeps latent units near 0: train with "
            "inference.latent_precision above 0"
        )
    has_free_label = label == "free" and trained.mode != "unsupervised" and not is_free
    if has_free_label and not trained.inference.label_precision:
        raise UserError(
            f"sampling.label=free: under {name} nothing but a prior keeps labels near 0; choose "
            "clamped"
        )


def build_test_inference(trained: TrainConfig, config: EvalConfig) -> Inference:
    """Build how activities relax at test time: as in training, but for what is asked otherwise.

    Raises:
        UserError: for an optimiser that optax does not have.
    """
    return build_inference(_at_test_time(trained, config))


def build_langevin(trained: TrainConfig, config: EvalConfig) -> Langevin:
    """Build the steps of sampling, as large as activities' own where not said."""
    rate = config.sampling.rate
    if rate is None:
        rate = _at_test_time(trained, config).optim.activity_lr
    if trained.inference.reduction == "mean":
        rate /= trained.batch_size
    return Langevin(
        jnp.asarray(rate, jnp.result_type(float)),
        jnp.asarray(config.inference.noise, jnp.result_type(float)),
        config.sampling.n_steps,
    )


def _at_test_time(trained: TrainConfig, config: EvalConfig) -> TrainConfig:
    """Put what an evaluation asks for in place of what a run was trained with."""
    optim, asked = trained.optim, config.optim
    if asked.activity is not None:
        optim = dataclasses.replace(optim, activity=asked.activity, activity_args={})
    if asked.activity_args:
        optim = dataclasses.replace(optim, activity_args=asked.activity_args)
    if asked.activity_lr is not None:
        optim = dataclasses.replace(optim, activity_lr=asked.activity_lr)
    inference = trained.inference
    if config.inference.n_steps is not None:
        inference = dataclasses.replace(inference, n_steps=config.inference.n_steps)
    weights = {
        name: getattr(config, name)
        for name in ("forward_energy_weight", "backward_energy_weight")
        if getattr(config, name) is not None
    }
    return dataclasses.replace(trained, optim=optim, inference=inference, **weights)
