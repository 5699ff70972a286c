"""Representation: images beside their reconstructions, and what each latent unit changes."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bpc_cli.core.models import Model, reconstruct
from bpc_cli.diagnostics import Diagnosis, Subject
from bpc_cli.diagnostics.completion import draw_completed
from bpc_cli.evaluation.parts import in_parts
from bpc_cli.evaluation.representation import represent

NEEDS = ("latent units",)
RELAXES = ("image",)
_SHOWN = 10  # images, and latent units
_DEVIATIONS = (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)


def traverse(
    model: Model,
    top: Float[Array, " top"],
    unit: int,
    values: Sequence[float] | np.ndarray,
) -> Float[Array, "values pixels"]:
    """Generate images of a top state in which one unit takes one value after another.

    Returns:
        [0, 1] pixels, not clipped.
    """
    tops = jnp.stack([top.at[unit].set(value) for value in values])
    return model.to_images(jax.vmap(lambda each: model.feed_down(each)[-1])(tops))


def diagnose(subject: Subject) -> Diagnosis:
    """Reconstruct test images, and traverse the latent units that vary most over them."""
    model, (images, _) = subject.model, subject.test_images()

    def relax(part: Array) -> tuple[Array, Array]:
        each = represent(model, part, subject.inference, subject.key)
        return each.relaxed, each.square_errors

    tops, errors = in_parts(relax, [images], "representing test images")
    first = represent(model, images[:_SHOWN], subject.inference, subject.key)
    latent = range(model.n_classes, model.n_classes + model.n_latent)
    deviations = tops.std(axis=0)
    most = sorted(latent, key=lambda unit: -deviations[unit])[:_SHOWN]
    middle = jnp.asarray(tops[0])
    traversals = [
        (
            f"unit {unit - model.n_classes}",
            np.asarray(
                traverse(
                    model,
                    middle,
                    unit,
                    tops[:, unit].mean() + deviations[unit] * np.asarray(_DEVIATIONS),
                )
            ),
        )
        for unit in most
    ]
    numbers = {
        "rmse": float(np.sqrt(np.mean(errors, dtype=np.float64))),
        "deviation": [float(deviations[unit]) for unit in latent],
    }
    n_used = int(np.sum(np.asarray(numbers["deviation"]) > 0.1 * max(numbers["deviation"])))
    lines = [
        f"reconstruction error by inference {numbers['rmse']:.4f}; {n_used} of {model.n_latent} "
        "latent units vary by more than a tenth of the one that varies most"
    ]
    rows = [
        ("image", np.asarray(images[:_SHOWN]) / 255),
        ("feedforward", np.asarray(reconstruct(model, images[:_SHOWN]))),
        ("by inference", np.asarray(first.reconstructed)),
    ]
    shape = subject.dataset.image_shape
    marked = [f"{deviation:+g} σ" if deviation else "mean" for deviation in _DEVIATIONS]
    figures = {
        "reconstructions.png": draw_completed(rows, shape),
        "traversals.png": draw_completed(traversals, shape, marked),
    }
    return Diagnosis(numbers, lines, figures)
