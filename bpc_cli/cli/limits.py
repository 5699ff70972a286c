"""What cannot be run here, rejected before anything is allocated."""

import equinox as eqx
import jax

from bpc_cli.cli.architecture import model_maker
from bpc_cli.cli.build import build_learning
from bpc_cli.core.layout import split
from bpc_cli.core.learning import TrainState, make_state
from bpc_cli.errors import UserError
from bpc_cli.options.groups import ModelConfig
from bpc_cli.options.schema import TrainConfig
from bpc_cli.runs.device import device_memory, training_memory
from bpc_cli.runs.plan import Plan


def reject_what_exceeds_memory(config: TrainConfig, plan: Plan, n_together: int) -> None:
    """Reject models and batches that cannot fit in memory, before anything is allocated.

    Raises:
        UserError: if they need more than the device has, or their weights do not fit the optimiser.
    """
    needed = memory_needed(config, plan) * n_together
    available = device_memory(plan.n_devices)
    if needed <= available:
        return
    several = f", n_seeds={config.n_seeds}" if config.n_seeds > 1 else ""
    together = f" for {n_together} runs together" if n_together > 1 else ""
    raise UserError(
        f"{_size_of(config.model)}, "
        f"batch_size={config.batch_size}{several} need about {needed / 2**30:,.1f} GiB"
        f"{together}, and there are {available / 2**30:,.1f} GiB: reduce one of them"
        + (", or hydra.launcher.group_size" if together else "")
    )


def _size_of(model: ModelConfig) -> str:
    if model.name == "cnn":
        return f"model.channels={model.channels}"
    if model.name == "bimodal":
        return (
            f"model.width={model.width}, model.depth={model.depth}, model.shared={model.shared}, "
            f"model.label_widths={model.label_widths}"
        )
    return f"model.width={model.width}, model.depth={model.depth}"


def memory_needed(config: TrainConfig, plan: Plan) -> int:
    """Count what a training step of a run holds at least on each of its devices, in bytes.

    Raises:
        UserError: if the weights do not fit the optimiser.
    """
    for_members, for_batch = split(config.n_seeds, config.batch_size, plan.n_devices)
    try:
        of_one = training_memory(state_shapes(config, plan), config.batch_size // for_batch)
        return of_one * (config.n_seeds // for_members)
    except OverflowError:  # more than JAX can count
        return 2**63


def state_shapes(config: TrainConfig, plan: Plan) -> TrainState:
    """Find the shapes of one model's training state, and allocate nothing.

    Raises:
        UserError: if the weights do not fit the optimiser.
        OverflowError: if they are more than JAX can count.
    """
    maker = model_maker(config, plan.dataset.n_classes, plan.dataset.image_shape)
    learning = build_learning(config, plan.schedule.n_iters)
    try:
        return eqx.filter_eval_shape(
            lambda key: make_state(maker(key=key), learning), jax.random.PRNGKey(0)
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"optim: these weights do not fit the optimiser ({error})") from error
