"""What is clamped and what is free in a sample's states.

| known | what inference then does |
|---|---|
| image and label | training; latent units beside the label are free |
| image | classifies by inference; in training, what is unsupervised |
| label | generates by inference |
| part of the image | completes the image |
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from bpc_cli.core.models import Model


class States(NamedTuple):
    """The states of one sample; in what is free, an end that is clamped is None.

    The label's is the top state, with any latent units.
    """

    label: Any  # Float[Array, " top"] | None
    activities: list[Float[Array, "..."]]
    image: Any  # Float[Array, "*image"] | None

    @property
    def layers(self) -> list[Float[Array, "..."]]:
        """All states, label side first."""
        return [self.label, *self.activities, self.image]


class Clamping(NamedTuple):
    """What is known of both ends of one sample.

    Attributes:
        label: the top state; where it is unknown, anything.
        image: the image in network units; where it is unknown, what it is initialised with.
        label_known: whether the top state is known, or which of its units are; None: all.
        image_known: which of the image is known; None: all.
    """

    label: Float[Array, "*batch top"]
    image: Float[Array, "*batch_and_image"]
    label_known: Bool[Array, "*batch_or_units"] | None = None
    image_known: Bool[Array, "*batch_and_image"] | None = None

    def complete(self, free: States) -> States:
        """Put what is known and what is free of a sample together."""
        label, image = self.label, self.image
        if self.label_known is not None and free.label is not None:
            label = jnp.where(self.label_known, label, free.label)
        if self.image_known is not None and free.image is not None:
            image = jnp.where(self.image_known, image, free.image)
        return States(label, free.activities, image)


def check_ends(model: Model, label: Array, image: Array, *, of_batch: bool = False) -> None:
    """Check that labels and images are what a model's ends can be clamped to.

    Args:
        model: the model.
        label: one sample's, or a batch's.
        image: likewise, in network units.
        of_batch: whether both have a leading axis of samples.

    Raises:
        ValueError: saying which is not, and how to make one that is.
    """
    shapes = model.state_shapes
    hints = (
        "clamping.clamp_both adds latent units to labels"
        if model.n_latent
        else "jax.nn.one_hot(labels, model.n_classes) makes such of class numbers",
        "model.to_states(images) makes such of images, with their leading axis",
    )
    leading = ("batch",) if of_batch else ()
    for name, end, shape, hint in zip(
        ("label", "image"), (label, image), (shapes[0], shapes[-1]), hints, strict=True
    ):
        found = jnp.shape(end)
        if len(found) != len(leading) + len(shape) or found[len(leading) :] != shape:
            wanted = ", ".join(map(str, (*leading, *shape)))
            raise ValueError(f"{name} must be of shape ({wanted}), not {found}: {hint}")
        if not jnp.issubdtype(jnp.result_type(end), jnp.floating):
            raise ValueError(f"{name} must be of real numbers, not {jnp.result_type(end)}: {hint}")
    if of_batch and len(label) != len(image):
        raise ValueError(f"{len(label)} labels do not fit {len(image)} images")


def clamp_both(
    model: Model,
    labels: Array,
    images: Array,
    label_known: Bool[Array, " images"] | None = None,
) -> Clamping:
    """Clamp many images and their labels, as training does; latent units are free.

    Args:
        model: the model.
        labels: one-hot labels, (images, classes); of no entries where the model has none. Inference
            checks them, and the images.
        images: in network units, (images, *image).
        label_known: whose labels are clamped; None: everyone's.
    """
    tops, is_label = model.clamp_label(labels)
    if is_label is not None:
        known = jnp.broadcast_to(is_label, tops.shape)
        label_known = known if label_known is None else known & label_known[:, None]
    return Clamping(tops, images, label_known)


def clamp_images(model: Model, images: Float[Array, "images *image"]) -> Clamping:
    """Clamp many images and nothing else."""
    label = jnp.zeros((len(images), *model.state_shapes[0]), images.dtype)
    return Clamping(label, images, label_known=jnp.zeros(len(images), bool))


def clamp_classes(model: Model) -> Clamping:
    """Clamp each class's label and nothing else; images are initialised by the generator."""
    images = model.generated_classes()
    clampings = clamp_both(model, model.one_hot(jnp.arange(model.n_classes)), images)
    return clampings._replace(image_known=jnp.zeros(images.shape, bool))
