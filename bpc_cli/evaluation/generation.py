"""Generation by inference: images that relax with the activities."""

import dataclasses

import equinox as eqx
import jax
from jaxtyping import Array, Float

from bpc_cli.core.clamping import clamp_classes
from bpc_cli.core.inference import Inference, infer_each, relative_distance
from bpc_cli.core.models import Model


@eqx.filter_jit
def generate_by_inference(
    model: Model, inference: Inference
) -> tuple[Float[Array, "classes pixels"], Float[Array, " classes"]]:
    """Generate an image of each class, relaxed with the activities.

    Activities and image are initialised by the generator, whatever `inference.init`.

    Returns:
        The images, as [0, 1] pixels that are not clipped; and how far the activities moved, as in
        `classify_by_inference`.
    """
    inference = dataclasses.replace(inference, init="generative")
    inferred = infer_each(model, clamp_classes(model), inference, trace=False)
    moved = jax.vmap(relative_distance)(inferred.states.activities, inferred.initial.activities)
    return model.to_images(inferred.states.image), moved
