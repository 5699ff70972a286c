"""Linear probes: how well a linear classifier predicts the class from each hidden layer."""

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, UInt8
from matplotlib.figure import Figure

from bpc_cli.core.batching import in_blocks
from bpc_cli.core.clamping import clamp_images
from bpc_cli.core.inference import Inference, infer_each
from bpc_cli.core.models import Model
from bpc_cli.diagnostics import Diagnosis, Subject
from bpc_cli.evaluation.parts import in_parts
from bpc_cli.evaluation.representation import N_DECODED, probe

NEEDS = ()
RELAXES = ("image",)


@eqx.filter_jit
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
        inferred = infer_each(model, clampings, inference, key, trace=False)
        return flat(inferred.initial.activities), flat(inferred.states.activities)

    return in_blocks(of_block, [images], block_size)


def diagnose(subject: Subject) -> Diagnosis:
    """Probe every hidden layer of the test images, as initialised and relaxed."""
    dataset, n = subject.dataset, N_DECODED
    images, labels = subject.test_images()

    def activities(images: Any, about: str) -> Any:
        return in_parts(
            lambda part: activities_of(subject.model, part, subject.inference, subject.key),
            [images],
            about,
        )

    train = activities(dataset.train_images[:n], "inferring training images")
    test = activities(images, "inferring test images")
    numbers = {
        when: [
            probe(a, dataset.train_labels[:n], b, np.asarray(labels))
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
    n_layers = len(numbers["start"])
    figure = Figure(figsize=(max(5.0, 1.2 + 0.8 * n_layers), 3.6), layout="constrained")
    axes = figure.subplots()
    places = np.arange(n_layers)
    for name, label, shift in (("start", "as initialised", -0.2), ("relaxed", "relaxed", 0.2)):
        bars = axes.bar(places + shift, numbers[name], 0.38, label=label)
        axes.bar_label(bars, fmt="%.1f", fontsize=7, padding=1)
    axes.set_xticks(places, [f"z{layer}" for layer in places])
    axes.set(
        xlabel="hidden layer, counted from the label",
        xlim=(min(-0.6, n_layers / 2 - 2), max(n_layers - 0.4, n_layers / 2 + 1)),
        ylabel="linear probe's accuracy (%)",
        ylim=(0, 105),
    )
    axes.grid(alpha=0.3, axis="y")
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=2, fontsize=8)
    return figure
