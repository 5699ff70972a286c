"""Trained models from a run directory or a checkpoint file."""

import dataclasses
import os
from pathlib import Path

import equinox as eqx
import jax

from bpc_cli.cli.architecture import model_maker
from bpc_cli.core.ensembles import stack, take, with_leading_axis
from bpc_cli.core.learning import TrainState
from bpc_cli.core.models import Model
from bpc_cli.errors import UserError
from bpc_cli.files import JsonObject, expanded
from bpc_cli.options.check import check_saved_config
from bpc_cli.options.declare import flatten_options
from bpc_cli.options.schema import TrainConfig
from bpc_cli.runs.checkpoints.checkpoint import Checkpoint, open_checkpoint, restore


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """What a model was trained with.

    Attributes:
        path: the checkpoint that it was read from.
        iteration: the training iteration that it is of.
        seed: the model's seed.
        data_set: the data set that it was trained on.
        class_names: a name for each class.
        image_shape: height, width and channels of an image.
        options: every option by its dotted path, such as "model.width".
        versions: software and device, where the checkpoint names them.
        warning: a line, if this is not the checkpoint that was asked for.
    """

    path: Path
    iteration: int
    seed: int
    data_set: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    options: JsonObject
    versions: dict[str, str]
    warning: str | None = None


def load(
    path: str | os.PathLike, which: str = "last", *, seed: int | None = None
) -> tuple[Model, TrainedRun]:
    """Load a trained model, and what it was trained with.

    Everything in the file is checked, and nothing of it is executed.

    Args:
        path: a run directory, or a checkpoint file.
        which: the checkpoint to read in a run directory, "last" or "best".
        seed: the seed of the model, where a run trained several.

    Raises:
        UserError: if there is no checkpoint that is whole and holds such a model.
    """
    checkpoint, warning = open_checkpoint(expanded(path), which)
    config = check_saved_config(checkpoint.header["config"], checkpoint.path)
    seeds = range(config.seed, config.seed + config.n_seeds)
    if seed is None and len(seeds) > 1:
        raise UserError(
            f"{checkpoint.path} holds seeds {seeds[0]} to {seeds[-1]}: choose one, as by "
            f"seed={seeds[0]}"
        )
    chosen = seeds[0] if seed is None else seed
    if chosen not in seeds:
        raise UserError(f"{checkpoint.path} holds no seed {seed}, but {seeds[0]} to {seeds[-1]}")
    models = jax.device_get(restore_models(checkpoint, config))
    header = checkpoint.header
    versions = header.get("versions")
    run = TrainedRun(
        path=checkpoint.path,
        iteration=header["iteration"],
        seed=chosen,
        data_set=str(header.get("data_set")),
        class_names=tuple(map(str, header["class_names"])),
        image_shape=_image_shape(checkpoint),
        options=dict(flatten_options(dataclasses.asdict(config), TrainConfig)),
        versions=(
            {str(k): str(v) for k, v in versions.items()} if isinstance(versions, dict) else {}
        ),
        warning=warning,
    )
    return take(models, seeds.index(chosen)), run


def restore_models(checkpoint: Checkpoint, trained: TrainConfig) -> Model:
    """Rebuild a checkpoint's models, each seed's, stacked along a leading axis.

    Raises:
        UserError: if its arrays do not fit its config.
    """
    try:
        # A depth that the file does not back would take for ever to build.
        if trained.model.depth > len(checkpoint.header["arrays"]):
            raise ValueError("fewer arrays than layers")
        maker = model_maker(
            trained, len(checkpoint.header["class_names"]), _image_shape(checkpoint)
        )
        model = eqx.filter_eval_shape(lambda key: maker(key=key), jax.random.PRNGKey(0))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{checkpoint.path} does not describe a model ({error})") from error
    state = TrainState(model, None, None)
    if trained.n_seeds == 1:
        return stack([restore(checkpoint, state)]).model
    return restore(checkpoint, with_leading_axis(state, trained.n_seeds)).model


def _image_shape(checkpoint: Checkpoint) -> tuple[int, int, int]:
    height, width, channels = checkpoint.header["image_shape"]
    return height, width, channels
