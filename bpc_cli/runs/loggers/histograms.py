"""What histograms of a model show: its weights, and what its amortiser makes of images."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from bpc_cli.core.ensembles import over_ensemble
from bpc_cli.core.models import Model

HISTOGRAM_IMAGES = 1_000
_PLURALS = {"weight": "weights", "bias": "biases"}


def histograms_of(
    models: Model, images: UInt8[np.ndarray, "examples pixels"]
) -> dict[str, np.ndarray]:
    """Collect every layer's weights, and hidden activities as the amortiser initialises them.

    Args:
        models: an ensemble; each seed's values come one after the other.
        images: the activities' are those of the first 1,000.
    """
    values = {}
    for direction in ("generator", "amortiser"):
        for number, layer in enumerate(getattr(models, direction)):
            for path, leaf in jax.tree.leaves_with_path(eqx.filter(layer, eqx.is_array_like)):
                kind = _PLURALS.get(path[-1].name, path[-1].name)
                values[f"{kind}/{direction}_{number}"] = np.asarray(leaf).ravel()
    activities = _amortised(models, jnp.asarray(images[:HISTOGRAM_IMAGES]))
    for number, layer in enumerate(activities):
        values[f"activities/z_{number}"] = np.asarray(layer).ravel()
    return values


@eqx.filter_jit
def _amortised(
    models: Model, images: UInt8[Array, "examples pixels"]
) -> list[Float[Array, "members examples ..."]]:
    return over_ensemble(
        lambda model: jax.vmap(lambda image: model.feed_up(image)[1:])(model.to_states(images)),
        models,
    )
