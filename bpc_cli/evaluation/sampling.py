"""Images that are sampled from a model's energy, a chain of Langevin steps each."""

from typing import NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, Integer, PRNGKeyArray

from bpc_cli.core.inference import Inference
from bpc_cli.core.langevin import Langevin, clamp_for_samples, sample
from bpc_cli.core.models import Model
from bpc_cli.evaluation.parts import in_parts


class Samples(NamedTuple):
    """Sampled images, a row each.

    Attributes:
        images: what the generator predicts of the sampled activities, without the noise that the
            energy gives each pixel; [0, 1] pixels, not clipped.
        energies: the energy before each step.
    """

    images: Float[np.ndarray, "samples pixels"]
    energies: Float[np.ndarray, "samples steps"]


def sample_images(
    model: Model,
    inference: Inference,
    langevin: Langevin,
    n_samples: int,
    key: PRNGKeyArray,
    *,
    label_known: bool,
) -> Samples:
    """Sample images, of each class in turn where the model has a label.

    Args:
        model: the model.
        inference: its energy, and how states are initialised.
        langevin: the steps of a chain.
        n_samples: how many chains, whose last states are the samples.
        key: fixes noise; a sample's depends on its number alone.
        label_known: whether labels are clamped.
    """
    return Samples(
        *in_parts(
            lambda numbers: _sample_part(model, inference, langevin, numbers, key, label_known),
            [np.arange(n_samples)],
            "sampling images",
        )
    )


@eqx.filter_jit
def _sample_part(
    model: Model,
    inference: Inference,
    langevin: Langevin,
    numbers: Integer[Array, " part"],
    key: PRNGKeyArray,
    label_known: bool,
) -> tuple[Array, Array]:
    clampings = clamp_for_samples(model, numbers, label_known=label_known)
    keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)
    states, energies = jax.vmap(lambda each, own: sample(model, each, inference, langevin, own))(
        clampings, keys
    )
    images = jax.vmap(model.layers_to_image[-1])(states.layers[-2])
    return model.to_images(images), energies
