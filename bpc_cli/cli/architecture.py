"""A config → the function that makes its model."""

from collections.abc import Callable

from jax.tree_util import Partial

from bpc_cli.core.architectures import Cnn, Mlp
from bpc_cli.core.bimodal import Bimodal
from bpc_cli.core.models import Architecture, Model, make_model
from bpc_cli.data.pixels import PerChannel, PixelScale
from bpc_cli.errors import UserError
from bpc_cli.options.groups import ModelConfig
from bpc_cli.options.schema import TrainConfig


def model_maker(
    config: TrainConfig, n_classes: int, image_shape: tuple[int, int, int]
) -> Callable[..., Model]:
    """Make the function that makes a config's model from a `key`.

    Raises:
        UserError: if the model is not for images of this size, or `data.mean` or `data.std` has
            not one number for each channel.
    """
    architecture, n_latent = _architecture(config.model), config.model.latent
    n_classes = 0 if config.mode == "unsupervised" else n_classes
    if isinstance(architecture, Cnn):
        try:
            architecture.state_shapes(n_classes + n_latent, image_shape)
        except ValueError as error:
            raise UserError(f"model.channels: {error}") from error
    n_channels = image_shape[-1]
    return Partial(
        make_model,
        architecture,
        n_classes=n_classes,
        image_shape=image_shape,
        pixel_scale=PixelScale(
            _per_channel("data.mean", config.data.mean, n_channels),
            _per_channel("data.std", config.data.std, n_channels),
        ),
        label_loss=config.model.label_loss,
        n_latent=n_latent,
    )


def _per_channel(option: str, value: float | list[float], n_channels: int) -> PerChannel:
    """Turn an option that is one number or one for each channel into a plain value."""
    if not isinstance(value, list):
        return value
    if len(value) != n_channels:
        raise UserError(
            f"{option} must be one number, or {n_channels} for images of {n_channels} "
            f"channel{'s' if n_channels > 1 else ''}, not {len(value)}"
        )
    return tuple(value)


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
    if model.name == "bimodal":
        widths = (model.width,) * (model.depth - 1)
        return Bimodal(widths, model.shared, tuple(model.label_widths), **shared)
    return Mlp(model.width, model.depth, parameterisation=model.parameterisation, **shared)
