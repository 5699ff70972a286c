"""Which options go together, and one line for those that do not."""

import math
import re

from bpc_cli.errors import UserError
from bpc_cli.options.algorithms import ALGORITHMS
from bpc_cli.options.groups import ModelConfig
from bpc_cli.options.schema import TrainConfig

_MOST_STAGES = 100


def check_combinations(config: TrainConfig) -> None:
    """Reject options that contradict each other.

    Raises:
        UserError: saying which, and what to choose.
    """
    if config.seed + config.n_seeds > 2**32:
        raise UserError(f"seed + n_seeds must be at most {2**32}: seeds have 32 bits")
    checkpoint_distance(config)
    _check_model(config.model)
    if config.data.name == "image_folder" and config.data.channels == 2:
        raise UserError("data.channels must be 1 (grey) or 3 (colour), not 2")
    _check_layer_weights(config)
    _check_algorithm(config)
    _check_mode(config)
    _check_labels(config)
    _check_processes(config)


def list_advice(config: TrainConfig) -> list[str]:
    """List in a line each what options that are accepted most likely lack."""
    advice = []
    model, optim = config.model, config.optim
    if model.parameterisation == "mupc" and optim.param == "adam" and optim.param_lr < 0.01:
        advice.append(
            f"model.parameterisation=mupc hardly learns at optim.param_lr={optim.param_lr:g}: its "
            "weights are of size 1; experiment=mupc_depth32 has optim.param_lr=0.03, "
            "inference.reduction=sum and optim.activity_lr=0.1"
        )
    return advice


def checkpoint_distance(config: TrainConfig) -> tuple[int | None, float]:
    """Resolve `checkpoint_every` to a number of iterations, or of seconds.

    Returns:
        Iterations or None, and seconds or infinity.

    Raises:
        UserError: if it is neither.
    """
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)s", config.checkpoint_every, re.ASCII):
        return None, float(match[1])
    if re.fullmatch(r"0*[1-9]\d{0,17}", config.checkpoint_every, re.ASCII):
        return int(config.checkpoint_every), math.inf
    raise UserError(
        "checkpoint_every must be a number of iterations (100) or of seconds (60s), "
        f"not {config.checkpoint_every}"
    )


def n_inference_steps(config: TrainConfig) -> int:
    """Resolve the default number of inference steps: one per hidden state, none for bp."""
    if ALGORITHMS[config.algorithm.name].by_backpropagation:
        return 0
    steps = config.inference.n_steps
    return n_layers(config.model) - 1 if steps is None else steps


def n_layers(model: ModelConfig) -> int:
    """Count the layers of either direction."""
    if model.name == "cnn":
        return len(model.channels) + 1
    return model.depth + (len(model.label_widths) + 1) * (model.name == "bimodal")


def _check_model(model: ModelConfig) -> None:
    if model.parameterisation == "mupc" and model.name != "mlp":
        raise UserError(
            "model.parameterisation=mupc is defined for one chain of dense layers: choose "
            "model=mlp, or standard"
        )
    if len(model.label_widths) > _MOST_STAGES:
        raise UserError(f"model.label_widths must have at most {_MOST_STAGES} numbers")
    if model.name != "cnn":
        return
    if not model.channels:
        raise UserError("model.channels must have a number for each hidden state, such as [32,64]")
    if len(model.channels) > _MOST_STAGES:
        raise UserError(f"model.channels must have at most {_MOST_STAGES} numbers")


def _check_layer_weights(config: TrainConfig) -> None:
    for direction in ("forward", "backward"):
        factors = getattr(config.inference, f"{direction}_layer_weights")
        if factors is None:
            continue
        if len(factors) != (wanted := n_layers(config.model)):
            counted = {
                "cnn": "len(model.channels) + 1",
                "bimodal": "model.depth + len(model.label_widths) + 1",
            }.get(config.model.name, "model.depth")
            raise UserError(
                f"inference.{direction}_layer_weights must have {counted} = {wanted} numbers, "
                f"not {len(factors)}"
            )
        if not all(0 <= factor < math.inf for factor in factors):
            raise UserError(f"inference.{direction}_layer_weights must be at least 0, and finite")


def _check_algorithm(config: TrainConfig) -> None:
    name, inference = config.algorithm.name, config.inference
    algorithm = ALGORITHMS[name]
    if algorithm.by_backpropagation:
        if inference.n_steps or inference.init:
            raise UserError(
                f"algorithm={name} has no activities to infer: leave inference.n_steps and "
                "inference.init at null"
            )
        if inference.forward_layer_weights or inference.backward_layer_weights:
            raise UserError(
                f"algorithm={name} learns from its outputs alone: it has no layer weights"
            )
    if config.model.name == "bimodal" and not algorithm.generator_learns:
        raise UserError(
            f"model=bimodal: the label is predicted by the generator, and {name} has none that "
            "learns; choose another algorithm, or another model"
        )
    weights = {
        "forward_energy_weight": (algorithm.generator_learns, config.forward_energy_weight),
        "backward_energy_weight": (algorithm.amortiser_learns, config.backward_energy_weight),
    }
    if any(learns and weight > 0 for learns, weight in weights.values()):
        return
    zero = [option for option, (learns, _) in weights.items() if learns]
    if len(zero) == 1:
        raise UserError(f"{zero[0]} is 0: {name} would learn nothing")
    raise UserError(f"{' and '.join(zero)} are both 0: nothing would be learnt")


def _check_mode(config: TrainConfig) -> None:
    mode, n_latent, name = config.mode, config.model.latent, config.algorithm.name
    if config.model.name == "bimodal" and (n_latent or mode != "supervised"):
        raise UserError(
            "model=bimodal has a state of model.shared units, and none beside the label: leave "
            "mode at supervised and model.latent at 0, or choose another model"
        )
    if mode == "supervised":
        if n_latent:
            raise UserError(
                f"model.latent={n_latent}: in mode=supervised the label is all of the top layer; "
                "choose mode=hybrid or mode=unsupervised"
            )
        infers = not ALGORITHMS[name].by_backpropagation
        is_shared = config.model.name == "bimodal" and infers
        if config.inference.latent_precision and not is_shared:
            raise UserError(
                "inference.latent_precision is the prior of latent units: choose model.latent, and "
                "mode=hybrid or mode=unsupervised"
            )
        return
    if n_latent == 0:
        raise UserError(f"mode={mode} has latent units: say how many, as by model.latent=32")
    algorithm = ALGORITHMS[name]
    if algorithm.by_backpropagation:
        raise UserError(
            f"mode={mode}: algorithm={name} infers nothing, so it has no latent units; choose "
            "another, or mode=supervised"
        )
    if mode == "hybrid":
        return
    if not algorithm.generator_infers:
        raise UserError(
            f"mode=unsupervised: without a label the amortiser's own activities leave {name} no "
            "error, and it would learn nothing"
        )
    if config.data.label_fraction < 1:
        raise UserError(
            "mode=unsupervised has no label at all: leave data.label_fraction at 1, or choose "
            "mode=hybrid"
        )
    if config.model.label_loss != "squared":
        raise UserError(
            "model.label_loss is the loss at the label, and mode=unsupervised has none: leave it "
            "at squared"
        )


def _check_labels(config: TrainConfig) -> None:
    name, fraction = config.algorithm.name, config.data.label_fraction
    algorithm = ALGORITHMS[name]
    infers_labels = fraction < 1 and config.data.unlabelled == "infer"
    if config.inference.label_precision and not infers_labels:
        raise UserError(
            "inference.label_precision is the prior of labels that are free in training: "
            "choose data.label_fraction below 1, and data.unlabelled=infer"
        )
    if fraction == 1:
        return
    if config.data.unlabelled == "drop":
        if fraction == 0:
            raise UserError(
                "data.label_fraction=0 and data.unlabelled=drop: no image is left to train on"
            )
        if config.overfit_batch:
            raise UserError(
                "overfit_batch trains on one batch: leave data.unlabelled at infer, or "
                "data.label_fraction at 1"
            )
        return
    if algorithm.by_backpropagation:
        raise UserError(
            f"data.label_fraction={fraction}: algorithm={name} learns from labels alone, and "
            "cannot use an image without one; data.unlabelled=drop trains on the others alone"
        )
    if config.model.label_loss == "cross_entropy":
        raise UserError(
            f"data.label_fraction={fraction}: a label that is free has no cross-entropy with its "
            "prediction; choose model.label_loss=squared"
        )
    init = config.inference.init or algorithm.init
    if fraction == 0 and init == "amortised" and not algorithm.generator_infers:
        raise UserError(
            f"data.label_fraction=0: without labels the amortiser's own activities leave {name} no "
            "error, and it would learn nothing"
        )


def _check_processes(config: TrainConfig) -> None:
    compute = config.compute
    number, own = compute.n_processes, compute.process
    by_hand = compute.coordinator not in (None, "slurm")
    if not by_hand and (number is not None or own is not None):
        raise UserError(
            "compute.n_processes and compute.process need compute.coordinator=ADDRESS:PORT"
        )
    address = re.fullmatch(r".+:(\d{1,5})", str(compute.coordinator))
    if by_hand and not (address and 0 < int(address[1]) < 2**16):
        raise UserError(
            f"compute.coordinator must be ADDRESS:PORT or slurm, not {compute.coordinator}"
        )
    if by_hand and (number is None or own is None or own >= number):
        raise UserError(
            f"compute.coordinator={compute.coordinator} needs compute.n_processes, and "
            "compute.process below it"
        )
