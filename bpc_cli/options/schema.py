"""The typed schema of every option of a run: its type, its range, its unit and what it means.

Defaults live in `configs/`; `options.check` turns a composed config into these dataclasses. Below
`cli.build` nothing sees a config.
"""

import dataclasses
from typing import Any

from bpc_cli.options import names
from bpc_cli.options.algorithms import ALGORITHMS
from bpc_cli.options.declare import option


@dataclasses.dataclass
class ModelConfig:
    width: int = option("hidden units per state", "units", at_least=1)
    depth: int = option(
        "layers of each direction; depth - 1 states are hidden",
        "layers",
        at_least=1,
        at_most=1000,
    )
    act_fn: str = option(
        "activation before each linear map but a network's first",
        choices=tuple(names.ACTIVATIONS),
    )
    generator_act_fn: str | None = option(
        "the generator's, if it is another; null: act_fn",
        choices=tuple(names.ACTIVATIONS),
        before=None,
    )
    use_bias: bool = option("whether linear layers have a bias")
    parameterisation: str = option(
        "how weights are initialised and products scaled: as usual, or so that learning rates "
        "keep over widths and depths, with skip connections (muPC)",
        choices=names.PARAMETERISATIONS,
        before="standard",
    )
    label_loss: str = option(
        "the amortiser's error at the label: squared, or cross-entropy",
        choices=names.LABEL_LOSSES,
        before="squared",
    )


@dataclasses.dataclass
class OptimConfig:
    activity_lr: float = option(
        "learning rate of inference; under inference.reduction=mean each sample's gradient is "
        "multiplied by 1/batch_size first",
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
    activity_schedule_args: dict[str, Any] = option("its other arguments", takes_any_keys=True)
    param_lr: float = option(
        "learning rate of the weights of each direction", "per step", at_least=0, traced=True
    )
    param: str = option("optax optimiser of each direction's weights, by name")
    param_args: dict[str, Any] = option(
        "its other arguments, such as {weight_decay: 5e-3}", takes_any_keys=True
    )
    param_clip: float | None = option(
        "most that the norm of a direction's gradient may be; null: anything", above=0, before=None
    )
    param_schedule: str | None = option(
        "optax schedule of param_lr over iterations, by name; null: constant"
    )
    param_schedule_args: dict[str, Any] = option("its other arguments", takes_any_keys=True)


@dataclasses.dataclass
class InferenceConfig:
    n_steps: int | None = option(
        "gradient steps on the activities per training step; null: depth - 1",
        "steps",
        at_least=0,
        at_most=1_000_000,
    )
    init: str | None = option(
        "how activities are initialised; null: as the algorithm does",
        choices=names.INITS,
        before=None,
        was="inference.start",
    )
    reduction: str = option(
        "gradient that activities follow: of the batch's mean energy (each sample moves at "
        "rate/batch_size), or of its sum (at the rate itself)",
        choices=names.REDUCTIONS,
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
        "a sample's activities stop when the root mean square of their gradient is below this; "
        "null: after n_steps",
        at_least=0,
        before=None,
    )
    label_precision: float = option(
        "prior precision of a label that is free in training: the weight of its ½ ‖label‖²",
        at_least=0,
        before=0.0,
        was="inference.label_decay",
    )


@dataclasses.dataclass
class AlgorithmConfig:
    name: str = option(
        "; ".join(f"{name}: {each.about}" for name, each in ALGORITHMS.items()),
        choices=tuple(ALGORITHMS),
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
    shift_fraction: float = option(
        "fraction of training images that are shifted",
        at_least=0,
        at_most=1,
        before=1.0,
        was="data.shift_share",
    )
    augmentation: dict[str, Any] = option(
        "other augmentations of training images by name, such as {noise: 0.1}",
        takes_any_keys=True,
        before={},
    )
    label_fraction: float = option(
        "fraction of each class's training images whose label is known; the label of others is "
        "free. 0: unsupervised",
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
        choices=names.MATMUL_PRECISIONS,
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
        choices=names.WANDB_MODES,
        may_change=True,
        before="offline",
    )


@dataclasses.dataclass
class TrainConfig:
    seed: int = option(
        "fixes initial weights and batch order", at_least=0, at_most=2**32 - 1, traced=True
    )
    n_seeds: int = option(
        "models trained as one program, an ensemble with seeds from `seed` upwards; metrics are "
        "their means",
        "models",
        at_least=1,
        before=1,
    )
    n_train_iters: int = option("training iterations", "iterations", at_least=1, may_change=True)
    n_epochs: int | None = option(
        "epochs of training; replaces n_train_iters unless null",
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
        "a run directory or checkpoint to resume, in a new directory; a run directory that is "
        "given again resumes by itself",
        may_change=True,
        before=None,
    )
    on_divergence: str = option(
        "what a loss that is not finite ends: this run and its sweep, or this run alone",
        choices=names.ON_DIVERGENCE,
        may_change=True,
        before="continue_sweep",
    )
    on_instability: str = option(
        "what a sign that training runs away or learns nothing does: a warning, or end this run",
        choices=names.ON_INSTABILITY,
        may_change=True,
        before="warn",
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
