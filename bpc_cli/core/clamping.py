"""What is clamped and what is free: inference of the rest of a network's states from what is known.

| known | what it is |
|---|---|
| image and label | training |
| image | naming by relaxation; in training, what is unsupervised |
| label | drawing by relaxation |
| part of the image | completion |
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from bpc_cli.core.energy import energy, half_mean_square_norm
from bpc_cli.core.inference import Activities, Relaxation, amortise, relax, start
from bpc_cli.core.models import Amortiser, Generator
from bpc_cli.core.rules import Rules


class States(NamedTuple):
    """All states of a network, label side first."""

    label: Float[Array, "batch label"]
    activities: Activities
    image: Float[Array, "batch image"]


class Free(NamedTuple):
    """The states that are free; an end that is clamped is None."""

    label: Float[Array, "batch label"] | None
    activities: Activities
    image: Float[Array, "batch image"] | None


class Clamping(NamedTuple):
    """What is known of both ends.

    Attributes:
        label: the labels; where they are unknown, anything.
        image: the images; where they are unknown, what they start from.
        label_known: where the label is known; None: everywhere.
        image_known: where the image is known; None: everywhere.
    """

    label: Float[Array, "batch label"]
    image: Float[Array, "batch image"]
    label_known: Bool[Array, "batch #label"] | None = None
    image_known: Bool[Array, "#batch #image"] | None = None

    def complete(self, free: Free) -> States:
        """Put what is known and what is free together."""
        label, image = self.label, self.image
        if self.label_known is not None and free.label is not None:
            label = jnp.where(self.label_known, label, free.label)
        if self.image_known is not None and free.image is not None:
            image = jnp.where(self.image_known, image, free.image)
        return States(label, free.activities, image)

    def begin(
        self, how: str, generator: Generator, amortiser: Amortiser, key: PRNGKeyArray | None = None
    ) -> Free:
        """Initialise what is free.

        An unknown label starts from what the amortiser makes of the image, or, where activities do
        not start from the amortiser, from all classes alike: at a label of zeros, rectified
        activities would not move.

        Args:
            how: what activities start from, an entry of `inference.STARTS`.
            generator, amortiser: the networks.
            key: fixes noise.
        """
        label, image = self.label, self.image
        if self.label_known is not None:
            free_label = jnp.full_like(label, 1 / label.shape[1])
            if how == "amortised":
                free_label = amortise(amortiser, image)[1]
            label = jnp.where(self.label_known, label, free_label)
        activities = start(how, generator, amortiser, label, image, key)
        return Free(
            None if self.label_known is None else label,
            activities,
            None if self.image_known is None else image,
        )


def image_alone(image: Float[Array, "batch image"], n_classes: int) -> Clamping:
    """Clamp images and nothing else."""
    unknown = jnp.zeros((len(image), 1), bool)
    return Clamping(jnp.zeros((len(image), n_classes), image.dtype), image, label_known=unknown)


def each_label_alone(generator: Generator) -> Clamping:
    """Clamp each class's label and nothing else; images start from the generator's pass."""
    weight = generator.layers[0].weight
    label = jnp.eye(weight.shape[1], dtype=weight.dtype)
    return Clamping(label, generator(label), image_known=jnp.zeros((1, 1), bool))


def infer(
    networks: tuple[Generator, Amortiser],
    clamping: Clamping,
    free: Free,
    rules: Rules,
    batch_size: int | None = None,
    observe: Callable[[Free, Free], PyTree] | None = None,
) -> tuple[States, Relaxation]:
    """Relax what is free, from where it is, on the energy that an algorithm infers by.

    Args:
        networks: generator and amortiser.
        clamping: what is known.
        free: what `clamping.begin` returned.
        rules: algorithm, energy weights, activity optimiser, number of steps.
        batch_size: of a mean energy's gradient, at rate/batch_size per sample whatever the number
            of samples here; None: that number.
        observe: a function of what is free and of the energy's gradient, computed at every step
            and at the end, whatever `rules.tolerance`.

    Returns:
        All states, and how what is free relaxed.
    """
    scale = 1.0
    if rules.reduction == "sum" or batch_size is not None:
        n_samples = len(clamping.image)
        scale = n_samples / (1 if rules.reduction == "sum" or batch_size is None else batch_size)
    relaxation = relax(
        free,
        lambda free: inference_energy(networks, clamping, free, rules),
        rules.activity_optimiser,
        rules.n_inference_steps,
        scale,
        rules.tolerance if observe is None else None,
        observe,
    )
    return clamping.complete(relaxation.free), relaxation


def inference_energy(
    networks: tuple[Generator, Amortiser], clamping: Clamping, free: Free, rules: Rules
) -> Float[Array, ""]:
    """Compute the energy that activities relax on, in which `rules.algorithm` says what takes part.

    A free label adds its prior's `label_decay/B Σ_samples ½ ‖label‖²`.
    """
    value = energy(
        *networks, *clamping.complete(free), *rules.inference_weights(), rules.label_loss
    )
    if rules.label_decay is None or clamping.label_known is None or free.label is None:
        return value
    unknown = jnp.where(clamping.label_known, 0, free.label)
    return value + rules.label_decay * half_mean_square_norm(unknown)
