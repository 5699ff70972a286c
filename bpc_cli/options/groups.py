"""The typed schema of the options of each group but data: model, inference and so on."""

import dataclasses
from typing import Any

from bpc_cli.options import names
from bpc_cli.options.algorithms import ALGORITHMS
from bpc_cli.options.declare import option


@dataclasses.dataclass
class ModelConfig:
    name: str = option(
        "what layers there are: dense, convolutions, or two chains that share a hidden state",
        choices=names.ARCHITECTURES,
        before="mlp",
    )
    width: int = option("mlp: units per hidden layer", "units", at_least=1)
    depth: int = option(
        "mlp: weight layers per network; depth - 1 hidden layers",
        "layers",
        at_least=1,
        at_most=1000,
    )
    latent: int = option(
        "free units of the top layer, beside the label or without one: see mode",
        "units",
        at_least=0,
        before=0,
    )
    shared: int = option(
        "bimodal: units of the state that label and image share", "units", at_least=1, before=128
    )
    label_widths: list[int] = option(
        "bimodal: units of each hidden state between the label and the shared one, label side "
        "first; width and depth are of those between the shared one and the image",
        "units",
        at_least=1,
        before=[64],
    )
    channels: list[int] = option(
        "cnn: channels of each hidden state, image side first",
        "channels",
        at_least=1,
        before=[32, 64],
    )
    halve_every: int = option(
        "cnn: after how many hidden states height and width are halved",
        "states",
        at_least=1,
        before=1,
    )
    pooling: str = option(
        "cnn: how the amortiser halves; stride: by the convolution itself",
        choices=names.POOLINGS,
        before="max",
    )
    upsampling: str = option(
        "cnn: how the generator doubles; resize leaves no checkerboards",
        choices=names.UPSAMPLINGS,
        before="transpose",
    )
    generator_output: str = option(
        "function of the generated image, to bound its pixels",
        choices=tuple(names.OUTPUTS),
        before="identity",
    )
    activation_at_ends: bool = option(
        "whether the activation function applies to label and image, too, when they are read",
        before=False,
    )
    act_fn: str = option(
        "activation function, before each layer but the first",
        choices=tuple(names.ACTIVATIONS),
    )
    generator_act_fn: str | None = option(
        "the generator's activation function; null: act_fn",
        choices=tuple(names.ACTIVATIONS),
        before=None,
    )
    use_bias: bool = option("biases in layers")
    parameterisation: str = option(
        "initialisation and scaling of weights; mupc: rates transfer over width and depth",
        choices=names.PARAMETERISATIONS,
        before="standard",
    )
    label_loss: str = option(
        "loss at the label of the amortiser, or, in a bimodal model, the generator",
        choices=names.LABEL_LOSSES,
        before="squared",
    )


@dataclasses.dataclass
class OptimConfig:
    activity_lr: float = option(
        "learning rate of activities (divided by batch_size if inference.reduction=mean)",
        "per step",
        at_least=0,
        traced=True,
    )
    activity: str = option("optax optimiser of activities")
    activity_args: dict[str, Any] = option(
        "arguments of optim.activity, such as {momentum: 0.9}", takes_any_keys=True
    )
    activity_schedule: str | None = option(
        "optax schedule of activity_lr over inference steps; null: constant"
    )
    activity_schedule_args: dict[str, Any] = option(
        "arguments of optim.activity_schedule", takes_any_keys=True
    )
    param_lr: float = option(
        "learning rate of each network's weights", "per step", at_least=0, traced=True
    )
    param: str = option("optax optimiser of each network's weights")
    param_args: dict[str, Any] = option(
        "arguments of optim.param, such as {weight_decay: 5e-3}", takes_any_keys=True
    )
    param_clip: float | None = option(
        "clip each network's gradient at this norm; null: never", above=0, before=None
    )
    param_schedule: str | None = option(
        "optax schedule of param_lr over iterations; null: constant"
    )
    param_schedule_args: dict[str, Any] = option(
        "arguments of optim.param_schedule", takes_any_keys=True
    )


@dataclasses.dataclass
class InferenceConfig:
    n_steps: int | None = option(
        "inference steps per training step; null: one for each hidden state",
        "steps",
        at_least=0,
        at_most=1_000_000,
    )
    init: str | None = option(
        "initialisation of activities; null: the algorithm's own",
        choices=names.INITS,
        before=None,
        was="inference.start",
    )
    reduction: str = option(
        "reduction of the energy over the batch, whose gradient activities follow",
        choices=names.REDUCTIONS,
        before="mean",
    )
    forward_layer_weights: list[float] | None = option(
        "factors of forward_energy_weight for each layer, label side first; null: 1 each",
        before=None,
    )
    backward_layer_weights: list[float] | None = option(
        "factors of backward_energy_weight for each layer", before=None
    )
    tolerance: float | None = option(
        "end a sample's inference at a gradient below this, root mean square; null: never",
        at_least=0,
        before=None,
    )
    label_precision: float = option(
        "prior precision of unknown labels: the weight of ½ ‖label‖²",
        at_least=0,
        before=0.0,
        was="inference.label_decay",
    )
    latent_precision: float = option(
        "prior precision of latent units, or of what label and image share: the weight of ½ ‖·‖²",
        at_least=0,
        before=0.0,
    )


@dataclasses.dataclass
class AlgorithmConfig:
    name: str = option(
        "; ".join(f"{name}: {each.about}" for name, each in ALGORITHMS.items()),
        choices=tuple(ALGORITHMS),
        before="bpc",
    )


@dataclasses.dataclass
class PlotsConfig:
    format: list[str] = option(
        "formats of figures, such as [png,svg,pdf]; PNG is always among them",
        choices=names.FIGURE_FORMATS,
        may_change=True,
        before=["png"],
    )


@dataclasses.dataclass
class ComputeConfig:
    compilation_cache: bool = option(
        "keep compiled programs in $BPC_CACHE_DIR or the user's cache", may_change=True
    )
    matmul_precision: str | None = option(
        "JAX's precision of matrix products; null: its default, on recent NVIDIA GPUs TF32",
        choices=names.MATMUL_PRECISIONS,
    )


@dataclasses.dataclass
class TrainingComputeConfig(ComputeConfig):
    devices: Any = option(  # OmegaConf has no type for "a number or a word"
        "devices of each process to train on, a number or all: seeds are split over them, or else "
        "each batch",
        at_least=1,
        or_word="all",
        may_change=True,
        before=1,
    )
    coordinator: str | None = option(
        "of several processes, the first one's address:port; slurm: those that srun has started",
        may_change=True,
        before=None,
    )
    n_processes: int | None = option(
        "of several processes, how many they are", at_least=2, may_change=True, before=None
    )
    process: int | None = option(
        "of several processes, which one this is: 0 leads and writes",
        at_least=0,
        may_change=True,
        before=None,
    )


@dataclasses.dataclass
class LoggerConfig:
    tensorboard: bool = option(
        "write TensorBoard event files (extra: tensorboard)",
        may_change=True,
        before=False,
    )
    wandb: bool = option("log to Weights & Biases (extra: wandb)", may_change=True, before=False)
    wandb_project: str = option("project on Weights & Biases", may_change=True, before="bpc")
    wandb_mode: str = option(
        "log over the network, or offline for a later `wandb sync`",
        choices=names.WANDB_MODES,
        may_change=True,
        before="offline",
    )
    mlflow: bool = option("log to MLflow (extra: mlflow)", may_change=True, before=False)
    mlflow_uri: str | None = option(
        "MLflow's server or database; null: $MLFLOW_TRACKING_URI or sqlite:///outputs/mlflow.db",
        may_change=True,
        before=None,
    )
    mlflow_experiment: str = option("experiment on MLflow", may_change=True, before="bpc")
