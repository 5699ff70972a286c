"""The typed schema of every option of a run: its type, its range, its unit and what it means.

Defaults live in `configs/`; `options.check` turns a composed config into these dataclasses. Below
`cli.build` nothing sees a config. The options of groups are in `options.groups`.
"""

import dataclasses

from bpc_cli.options import names
from bpc_cli.options.data_groups import TrainDataConfig
from bpc_cli.options.declare import option
from bpc_cli.options.groups import (
    AlgorithmConfig,
    InferenceConfig,
    LoggerConfig,
    ModelConfig,
    OptimConfig,
    PlotsConfig,
    TrainingComputeConfig,
)


@dataclasses.dataclass
class TrainConfig:
    seed: int = option(
        "seed of initial weights and batch order",
        section="run",
        at_least=0,
        at_most=2**32 - 1,
        traced=True,
    )
    n_seeds: int = option(
        "size of the ensemble trained as one program, with seeds `seed`, seed + 1, …",
        "models",
        section="run",
        at_least=1,
        before=1,
    )
    n_train_iters: int = option(
        "training iterations", "iterations", section="optim", at_least=1, may_change=True
    )
    n_epochs: int | None = option(
        "training epochs; null: n_train_iters",
        "epochs",
        section="optim",
        at_least=1,
        may_change=True,
    )
    batch_size: int = option("minibatch size", "images", section="optim", at_least=1)
    test_every: int = option(
        "interval between tests, each with a sample grid and a checkpoint",
        "iterations",
        section="logger",
        at_least=1,
        may_change=True,
    )
    log_every: int = option(
        "interval between lines of metrics.jsonl",
        "iterations",
        section="logger",
        at_least=1,
        may_change=True,
    )
    checkpoint_every: str = option(
        "interval between checkpoints, beside tests: seconds (60s) or iterations (100)",
        section="logger",
        may_change=True,
        before="60s",
    )
    keep_every: int | None = option(
        "interval between checkpoints kept for good; null: last, previous and best alone",
        "iterations",
        section="logger",
        at_least=1,
        may_change=True,
        before=None,
    )
    save_samples: bool = option(
        "keep the sample grid of every test, not of the last alone",
        section="logger",
        may_change=True,
        before=True,
    )
    resume: str | None = option(
        "run directory or checkpoint to resume from, in a new directory",
        section="run",
        may_change=True,
        before=None,
    )
    overfit_batch: bool = option(
        "train on one batch alone, and say at the end how far its losses have fallen",
        section="run",
        before=False,
    )
    on_divergence: str = option(
        "at a loss that is not finite: end the sweep, or this run alone",
        section="run",
        choices=names.ON_DIVERGENCE,
        may_change=True,
        before="continue_sweep",
    )
    on_instability: str = option(
        "at a sign of unstable or failing training: warn, or end the run",
        section="run",
        choices=names.ON_INSTABILITY,
        may_change=True,
        before="warn",
    )
    mode: str = option(
        "what of the top layer is clamped in training; supervised: the label, which is all of it; "
        "hybrid: the label, beside model.latent free units; unsupervised: nothing, and there is no "
        "label",
        section="algorithm",
        choices=names.MODES,
        before="supervised",
    )
    forward_energy_weight: float = option(
        "α_f, weight of the generator's prediction errors",
        section="algorithm",
        short="α_f",
        at_least=0,
        traced=True,
    )
    backward_energy_weight: float = option(
        "α_b, weight of the amortiser's prediction errors",
        section="algorithm",
        short="α_b",
        at_least=0,
        traced=True,
    )
    algorithm: AlgorithmConfig = dataclasses.field(default_factory=AlgorithmConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    inference: InferenceConfig = dataclasses.field(default_factory=InferenceConfig)
    data: TrainDataConfig = dataclasses.field(default_factory=TrainDataConfig)
    logger: LoggerConfig = dataclasses.field(default_factory=LoggerConfig)
    plots: PlotsConfig = dataclasses.field(default_factory=PlotsConfig)
    compute: TrainingComputeConfig = dataclasses.field(default_factory=TrainingComputeConfig)
