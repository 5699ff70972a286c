"""The typed schema of every option of a run: its type, its range, its unit and what it means.

Defaults live in `configs/`; `checking.py` turns a composed config into these dataclasses. Below the
entry points nothing sees a config.
"""

import dataclasses
import math
import re
from typing import Any

from bpc_cli.options.declare import option

_ACTIVATIONS = ("linear", "relu", "tanh", "hard_tanh", "leaky_relu", "gelu", "selu", "silu")


@dataclasses.dataclass
class ModelConfig:
    width: int = option("hidden units per layer", "units", at_least=1)
    depth: int = option(
        "linear layers of each network; depth - 1 of their inputs are hidden", "layers", at_least=1
    )
    act_fn: str = option(
        "activation before each linear map but a network's first",
        choices=_ACTIVATIONS,
    )
    generator_act_fn: str | None = option(
        "the generator's, if it is another; null: act_fn",
        choices=_ACTIVATIONS,
        before=None,
    )
    use_bias: bool = option("whether linear layers have a bias")
    parameterisation: str = option(
        "how weights start and products are scaled: as usual, or so that learning rates keep over "
        "widths and depths, with skip connections (muPC)",
        choices=("standard", "mupc"),
        before="standard",
    )
    label_loss: str = option(
        "the amortiser's error at the label: squared, or cross-entropy",
        choices=("squared", "cross_entropy"),
        before="squared",
    )


@dataclasses.dataclass
class OptimConfig:
    activity_lr: float = option(
        "learning rate of inference; the energy is a mean over the batch, so each sample's "
        "activities move at rate/batch_size",
        "per step",
        at_least=0,
        traced=True,
    )
    activity: str = option("optax optimiser of the activities, by name")
    activity_args: dict[str, Any] = option(
        "its other arguments, such as {momentum: 0.9}", takes_any_keys=True
    )
    activity_schedule: str | None = option(
        "optax schedule of activity_lr over inference steps, by name; null: constant"
    )
    activity_schedule_args: dict[str, Any] = option(
        "the schedule's other arguments", takes_any_keys=True
    )
    param_lr: float = option(
        "learning rate of the weights of each network", "per step", at_least=0, traced=True
    )
    param: str = option("optax optimiser of each network's weights, by name")
    param_args: dict[str, Any] = option(
        "its other arguments, such as {weight_decay: 5e-3}", takes_any_keys=True
    )
    param_clip: float | None = option(
        "most that the norm of a network's gradient may be; null: anything", above=0, before=None
    )
    param_schedule: str | None = option(
        "optax schedule of param_lr over iterations, by name; null: constant"
    )
    param_schedule_args: dict[str, Any] = option(
        "the schedule's other arguments", takes_any_keys=True
    )


@dataclasses.dataclass
class InferenceConfig:
    n_steps: int | None = option(
        "gradient steps on the activities per training step; null: depth - 1",
        "steps",
        at_least=0,
    )
    start: str | None = option(
        "what the activities start from; null: what the algorithm starts from",
        choices=("amortised", "generative", "zeros", "noise"),
        before=None,
    )
    reduction: str = option(
        "gradient that activities follow: of the batch's mean energy (each sample moves at "
        "rate/batch_size), or of its sum (at the rate itself)",
        choices=("mean", "sum"),
        before="mean",
    )
    forward_layer_weights: list[float] | None = option(
        "what forward_energy_weight is multiplied by at each layer, label side first: model.depth "
        "numbers; null: 1 each",
        before=None,
    )
    backward_layer_weights: list[float] | None = option(
        "the same for backward_energy_weight", before=None
    )
    tolerance: float | None = option(
        "relaxing ends when the root mean square of the samples' gradients is below this; null: "
        "after n_steps",
        at_least=0,
        before=None,
    )
    label_decay: float = option(
        "the prior of a label that is free in training, as the weight of its ½ ‖label‖²",
        at_least=0,
        before=0.0,
    )


@dataclasses.dataclass
class AlgorithmConfig:
    name: str = option(
        "the model: bidirectional, hybrid, discriminative or generative predictive coding, or "
        "backpropagation",
        choices=("bpc", "hpc", "discpc", "genpc", "bp"),
        before="bpc",
    )


@dataclasses.dataclass
class DataConfig:
    name: str = option("auto, digits, or a TFDS data set (mnist, fashion_mnist, kmnist, …)")
    dir: str | None = option(
        "TFDS's data directory; null: $TFDS_DATA_DIR or ~/tensorflow_datasets", may_change=True
    )
    archive_dir: str | None = option(
        "folder with the data set's four original .gz archives, instead of a download",
        may_change=True,
    )
    mean: float = option("subtracted from pixels in [0, 1]", "[0, 1] pixels")
    std: float = option("divides pixels in [0, 1] after that", "[0, 1] pixels", above=0)


@dataclasses.dataclass
class TrainDataConfig(DataConfig):
    noise: float = option(
        "standard deviation of noise that is added to training images anew at every step",
        "[0, 1] pixels",
        at_least=0,
        before=0.0,
    )
    shift: int = option(
        "most whole pixels by which training images are shifted, anew at every step",
        "pixels",
        at_least=0,
        at_most=100,
        before=0,
    )
    shift_share: float = option(
        "share of training images that are shifted", at_least=0, at_most=1, before=1.0
    )
    label_fraction: float = option(
        "share of each class's training images whose label is known; the label of others is free. "
        "0: unsupervised",
        at_least=0,
        at_most=1,
        before=1.0,
    )
    n_train: int | None = option(
        "train on the first images alone, so many; null: all", "images", at_least=1, before=None
    )
    n_validation: int = option(
        "keep the last training images, so many, to test on while training in place of the test "
        "set; 0: test on the test set. bpc-eval uses the test set",
        "images",
        at_least=0,
        before=0,
    )


@dataclasses.dataclass
class ComputeConfig:
    compilation_cache: bool = option(
        "keep compiled programs in $BPC_CACHE_DIR or the user's cache directory", may_change=True
    )
    matmul_precision: str | None = option(
        "jax.default_matmul_precision; null: JAX's default, full float32 on CPU and TF32 on recent "
        "NVIDIA GPUs",
        choices=("bfloat16", "tensorfloat32", "float32", "highest"),
    )


@dataclasses.dataclass
class LoggerConfig:
    tensorboard: bool = option(
        "write TensorBoard event files too: scalars, sample grids, histograms of weights and of "
        "amortised activities (extra: tensorboard)",
        may_change=True,
        before=False,
    )
    wandb: bool = option(
        "log to Weights & Biases too (extra: wandb)", may_change=True, before=False
    )
    wandb_project: str = option("the project there", may_change=True, before="bpc")
    wandb_mode: str = option(
        "whether it needs a network; offline runs are sent later by `wandb sync`",
        choices=("offline", "online"),
        may_change=True,
        before="offline",
    )


@dataclasses.dataclass
class TrainConfig:
    seed: int = option(
        "fixes initial weights and batch order", at_least=0, at_most=2**32 - 1, traced=True
    )
    n_seeds: int = option(
        "networks trained together as one program, with seeds from `seed` upwards; figures are "
        "their means",
        "networks",
        at_least=1,
        before=1,
    )
    n_train_iters: int = option("training iterations", "iterations", at_least=1, may_change=True)
    n_epochs: int | None = option(
        "passes over the training set; replaces n_train_iters unless null",
        "epochs",
        at_least=1,
        may_change=True,
    )
    batch_size: int = option("images per training step", "images", at_least=1)
    test_every: int = option(
        "distance of test points, at which accuracy, samples and a checkpoint are taken",
        "iterations",
        at_least=1,
        may_change=True,
    )
    log_every: int = option(
        "distance of lines in metrics.jsonl", "iterations", at_least=1, may_change=True
    )
    checkpoint_every: str = option(
        "most that a kill can lose, beside test points: iterations (100), or seconds (60s)",
        may_change=True,
        before="60s",
    )
    keep_every: int | None = option(
        "distance of checkpoints that are kept; null: only last, previous and best",
        "iterations",
        at_least=1,
        may_change=True,
        before=None,
    )
    save_samples: bool = option(
        "keep the sample grid of every test point, instead of the last one alone",
        may_change=True,
        before=True,
    )
    resume: str | None = option(
        "a run directory or checkpoint to go on from, in a new directory; a run directory that is "
        "given again goes on by itself",
        may_change=True,
        before=None,
    )
    on_divergence: str = option(
        "what a loss that is not finite ends: this run and its sweep, or this run alone",
        choices=("stop", "continue_sweep"),
        may_change=True,
        before="continue_sweep",
    )
    forward_energy_weight: float = option(
        "alpha_f, the weight of the generator's prediction errors", at_least=0, traced=True
    )
    backward_energy_weight: float = option(
        "alpha_b, the weight of the amortiser's prediction errors", at_least=0, traced=True
    )
    algorithm: AlgorithmConfig = dataclasses.field(default_factory=AlgorithmConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    inference: InferenceConfig = dataclasses.field(default_factory=InferenceConfig)
    data: TrainDataConfig = dataclasses.field(default_factory=TrainDataConfig)
    logger: LoggerConfig = dataclasses.field(default_factory=LoggerConfig)
    compute: ComputeConfig = dataclasses.field(default_factory=ComputeConfig)


def checkpoint_distance(config: TrainConfig) -> tuple[int | None, float]:
    """Resolve `checkpoint_every` to a number of iterations, or of seconds.

    Returns:
        Iterations or None, and seconds or infinity.

    Raises:
        ValueError: if it is neither.
    """
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)s", config.checkpoint_every, re.ASCII):
        return None, float(match[1])
    iterations = int(config.checkpoint_every)
    if iterations < 1:
        raise ValueError("not even one iteration")
    return iterations, math.inf


def n_inference_steps(config: TrainConfig) -> int:
    """Resolve the default number of inference steps: one per hidden layer, and none for bp."""
    if config.algorithm.name == "bp":
        return 0
    steps = config.inference.n_steps
    return config.model.depth - 1 if steps is None else steps


def layer_weights(weight: float, factors: list[float] | None) -> float | list[float]:
    """Multiply an energy weight by a factor for each layer, if there are any."""
    return weight if factors is None else [weight * factor for factor in factors]
