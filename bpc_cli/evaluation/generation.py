"""Generation by inference: images that relax with the activities."""

import dataclasses

import equinox as eqx
from jaxtyping import Array, Float

from bpc_cli.core.clamping import clamp_classes
from bpc_cli.core.inference import Inference, infer_each
from bpc_cli.core.models import Model


@eqx.filter_jit
def generate_by_inference(model: Model, inference: Inference) -> Float[Array, "classes pixels"]:
    """Generate an image of each class, relaxed with the activities; [0, 1] pixels, not clipped.

    Activities and image are initialised by the generator, whatever `inference.init`.
    """
    inference = dataclasses.replace(inference, init="generative")
    return model.to_images(infer_each(model, clamp_classes(model), inference).states.image)
