"""Linear probes: what of a class can be read off each hidden layer by a linear classifier."""

import warnings

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from bpc_cli.core.batching import in_blocks
from bpc_cli.core.clamping import image_alone, infer
from bpc_cli.core.rules import Rules
from bpc_cli.data.pixels import PixelScale, normalise
from bpc_cli.evaluation.by_inference import Networks, n_classes


def activities_of(
    networks: Networks,
    images: UInt8[Array, "images image"],
    scale: PixelScale,
    rules: Rules,
    batch_size: int,
    block_size: int = 500,
) -> tuple[list[Float[Array, "images width"]], list[Float[Array, "images width"]]]:
    """Compute every hidden layer's activities, label side first: where they start and relaxed.

    The image alone is clamped. The arguments are those of `relaxation.name_by_free_label`.
    """

    def of_block(pixels: UInt8[Array, "block image"]):
        clamping = image_alone(normalise(pixels, scale), n_classes(networks))
        start = clamping.begin(rules.start, *networks, rules.key)
        states, _ = infer(networks, clamping, start, rules, batch_size)
        return start.activities, states.activities

    return in_blocks(of_block, [jnp.asarray(images)], block_size)


def probe(
    train: Float[np.ndarray, "train width"],
    train_labels: Int[np.ndarray, " train"],
    test: Float[np.ndarray, "test width"],
    test_labels: Int[np.ndarray, " test"],
) -> float:
    """Compute a linear classifier's accuracy in percent on a layer's activities.

    It is scikit-learn's logistic regression (L2, C = 1) on activities of unit variance.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # as on classes that it separates
        classifier.fit(np.asarray(train), np.asarray(train_labels))
    return 100.0 * float(classifier.score(np.asarray(test), np.asarray(test_labels)))
