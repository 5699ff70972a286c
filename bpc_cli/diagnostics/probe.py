"""Linear probes: how well a linear classifier predicts the class from each hidden layer."""

import warnings
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, PRNGKeyArray, UInt8
from matplotlib.figure import Figure

from bpc_cli.core.batching import in_blocks
from bpc_cli.core.clamping import clamp_images
from bpc_cli.core.inference import Inference, infer_each
from bpc_cli.core.models import Model
from bpc_cli.diagnostics import Diagnosis, Subject

NEEDS_INFERENCE = False
_TRAINING_IMAGES = 5_000


def activities_of(
    model: Model,
    images: UInt8[Array, "images pixels"],
    inference: Inference,
    key: PRNGKeyArray | None = None,
    block_size: int = 500,
) -> tuple[list[Float[Array, "images _"]], list[Float[Array, "images _"]]]:
    """Compute every hidden layer's activities, flattened: as initialised, and relaxed.

    The image alone is clamped. The arguments are those of `classification.classify_by_inference`.
    """

    def of_block(pixels: Array) -> tuple[list[Array], list[Array]]:
        def flat(activities: list[Array]) -> list[Array]:
            return [activity.reshape(len(pixels), -1) for activity in activities]

        clampings = clamp_images(model, model.to_states(pixels))
        inferred = infer_each(model, clampings, inference, key)
        return flat(inferred.initial.activities), flat(inferred.states.activities)

    return in_blocks(of_block, [jnp.asarray(images)], block_size)


def probe(
    train: Float[np.ndarray, "train units"],
    train_labels: Integer[np.ndarray, " train"],
    test: Float[np.ndarray, "test units"],
    test_labels: Integer[np.ndarray, " test"],
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


def diagnose(subject: Subject) -> Diagnosis:
    """Probe every hidden layer of the test images, as initialised and relaxed."""
    dataset, n = subject.dataset, _TRAINING_IMAGES
    images, labels = subject.test_images()
    how = (subject.inference, subject.key)
    train = activities_of(subject.model, jnp.asarray(dataset.train_images[:n]), *how)
    test = activities_of(subject.model, images, *how)
    numbers = {
        when: [
            probe(np.asarray(a), dataset.train_labels[:n], np.asarray(b), np.asarray(labels))
            for a, b in zip(trained, tested, strict=True)
        ]
        for when, trained, tested in zip(("start", "relaxed"), train, test, strict=True)
    }
    lines = [
        f"layer {layer} from the label: {start:.2f} % as initialised, {relaxed:.2f} % relaxed"
        for layer, (start, relaxed) in enumerate(zip(*numbers.values(), strict=True))
    ]
    return Diagnosis(numbers, lines, {"probe.png": draw(numbers)})


def draw(numbers: Mapping[str, Sequence[float]]) -> Figure:
    """Draw a linear probe's accuracy on each hidden layer, as initialised and relaxed."""
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.subplots()
    for name, label, style in (("start", "as initialised", "o-"), ("relaxed", "relaxed", "s--")):
        axes.plot(range(len(numbers[name])), numbers[name], style, label=label)
    axes.set_xticks(range(len(numbers["start"])))
    axes.set(xlabel="hidden layer, from the label", ylabel="linear probe's accuracy (%)")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
