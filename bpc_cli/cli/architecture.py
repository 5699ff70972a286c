"""A config → the function that makes its model."""

from collections.abc import Callable

from jax.tree_util import Partial

from bpc_cli.core.architectures import Cnn, Mlp
from bpc_cli.core.models import Architecture, Model, make_model
from bpc_cli.data.pixels import PixelScale
from bpc_cli.errors import UserError
from bpc_cli.options.groups import ModelConfig
from bpc_cli.options.schema import TrainConfig


def model_maker(
    config: TrainConfig, n_classes: int, image_shape: tuple[int, int, int]
) -> Callable[..., Model]:
    """Make the function that makes a config's model from a `key`.

    Raises:
        UserError: if the model is not for images of this size.
    """
    architecture = _architecture(config.model)
    if isinstance(architecture, Cnn):
        try:
            architecture.state_shapes(n_classes, image_shape)
        except ValueError as error:
            raise UserError(f"model.channels: {error}") from error
    return Partial(
        make_model,
        architecture,
        n_classes=n_classes,
        image_shape=image_shape,
        pixel_scale=PixelScale(config.data.mean, config.data.std),
        label_loss=config.model.label_loss,
    )


def _architecture(model: ModelConfig) -> Architecture:
    shared = {
        "act_fn": model.act_fn,
        "generator_act_fn": model.generator_act_fn,
        "use_bias": model.use_bias,
        "generator_output": model.generator_output,
        "activation_at_ends": model.activation_at_ends,
    }
    if model.name == "cnn":
        return Cnn(
            tuple(model.channels),
            pooling=model.pooling,
            upsampling=model.upsampling,
            halve_every=model.halve_every,
            **shared,
        )
    return Mlp(model.width, model.depth, parameterisation=model.parameterisation, **shared)
