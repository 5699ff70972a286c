"""Completion: images of which a part is hidden are classified, and that part inferred."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer, PRNGKeyArray, UInt8
from matplotlib.figure import Figure
from tqdm import tqdm

from bpc_cli.core.batching import in_blocks
from bpc_cli.core.clamping import Clamping
from bpc_cli.core.inference import Inference, infer_each
from bpc_cli.core.models import Model
from bpc_cli.diagnostics import Diagnosis, Subject
from bpc_cli.evaluation.metrics import accuracy
from bpc_cli.files import JsonObject
from bpc_cli.options.names import HIDDEN_PARTS

NEEDS = ()
RELAXES = ("image", "half")
_SHOWN = 8
_HALF = 0.5
_METRICS = {
    "accuracy": "accuracy_by_pass",
    "relaxed_accuracy": "accuracy_by_relaxation",
    "rmse": "rmse",
}


class Completion(NamedTuple):
    """What a model makes of images of which a part is hidden.

    Attributes:
        by_pass: the classes that the amortiser's feedforward pass predicts, where hidden pixels are
            at 0 in network units; None where the model has no label.
        by_inference: those of the inferred label, relaxed with the hidden pixels from there.
        images: the images with the hidden pixels as inferred; [0, 1] pixels.
        generated: the same with the hidden pixels as the generator generates the class that the
            pass predicts; without a label, as it generates what the pass predicts.
    """

    by_pass: Integer[Array, " examples"] | None
    by_inference: Integer[Array, " examples"] | None
    images: Float[Array, "examples pixels"]
    generated: Float[Array, "examples pixels"]


def hidden_pixels(
    part: str, fraction: float, image_shape: tuple[int, int, int], n_images: int, seed: int = 0
) -> Bool[np.ndarray, "images pixels"]:
    """Choose which pixels of each image are hidden.

    Args:
        part: "top" (whole rows), "left" (whole columns), "random" (other pixels in each image), or
            "square" (in the middle; as high and wide as the image is, in proportion).
        fraction: of rows, columns or pixels.
        image_shape: height, width and channels; a pixel's channels are hidden together.
        n_images: how many images.
        seed: fixes which pixels are random.

    Raises:
        ValueError: if `part` is not one of these.
    """
    height, width, channels = image_shape
    hidden = np.zeros((n_images, height, width), bool)
    if part == "top":
        hidden[:, : round(fraction * height)] = True
    elif part == "left":
        hidden[:, :, : round(fraction * width)] = True
    elif part == "square":
        inner = [round(math.sqrt(fraction) * size) for size in (height, width)]
        first = [(size - side) // 2 for size, side in zip((height, width), inner, strict=True)]
        rows, columns = (slice(at, at + side) for at, side in zip(first, inner, strict=True))
        hidden[:, rows, columns] = True
    elif part == "random":
        order = np.random.default_rng(seed).random((n_images, height * width)).argsort(axis=1)
        hidden = (order < round(fraction * height * width)).reshape(hidden.shape)
    else:
        raise ValueError(f"unknown part '{part}'; known: {', '.join(HIDDEN_PARTS)}")
    return np.repeat(hidden[..., None], channels, axis=3).reshape(n_images, -1)


@eqx.filter_jit
def complete(
    model: Model,
    images: UInt8[Array, "examples pixels"],
    hidden: Bool[Array, "examples pixels"],
    inference: Inference,
    key: PRNGKeyArray | None = None,
    block_size: int = 500,
) -> Completion:
    """Classify images, and infer what of them is hidden; hidden pixels are never read.

    Args:
        model: the model.
        images: flattened, worked on in blocks.
        hidden: which of their pixels are hidden.
        inference: how activities are initialised and relaxed.
        key: fixes noise that they are initialised by.
        block_size: the images of a block.
    """

    def of_block(pixels: Array, hidden: Array) -> Completion:
        states = model.to_states(pixels)
        hidden = hidden.reshape(states.shape)
        image = jnp.where(hidden, 0.0, states)
        predicted = jax.vmap(lambda each: model.feed_up(each)[0])(image)
        clampings = Clamping(
            jnp.zeros_like(predicted), image, jnp.zeros(len(image), bool), image_known=~hidden
        )
        inferred = infer_each(model, clampings, inference, key, trace=False).states
        classes = by_inference = None
        if n := model.n_classes:
            classes = jnp.argmax(predicted[:, :n], axis=1)
            by_inference = jnp.argmax(inferred.label[:, :n], axis=1)
            generated = model.generated_classes()[classes]
        else:
            generated = jax.vmap(lambda top: model.feed_down(top)[-1])(predicted)
        return Completion(
            classes,
            by_inference,
            model.to_images(inferred.image),
            model.to_images(jnp.where(hidden, generated, image)),
        )

    return in_blocks(of_block, [images, hidden], block_size)


def diagnose(subject: Subject) -> Diagnosis:
    """Complete the test images, with each part and fraction of them hidden."""
    images, labels = subject.test_images()
    true = np.asarray(images) / 255
    numbers: JsonObject = {"hidden": list(subject.hidden)}
    lines, shown = [], []
    cases = list(itertools.product(HIDDEN_PARTS, subject.hidden))
    for part, fraction in tqdm(cases, desc="completing", unit="test", disable=None, leave=False):
        rows = numbers.setdefault(part, [])
        hidden = hidden_pixels(part, fraction, subject.dataset.image_shape, len(images))
        made = complete(subject.model, images, jnp.asarray(hidden), subject.inference, subject.key)
        measured = _measure(made, np.asarray(labels), true, hidden)
        if subject.inference.n_steps == 0:
            measured |= {"accuracy_by_relaxation": None, "rmse": None}
        rows.append(measured)
        if fraction == subject.hidden[len(subject.hidden) // 2]:
            lines.append(f"{part}, {100 * fraction:g} % hidden: {_in_words(rows[-1])}")
            shown += _rows_of(part, fraction, made, true, hidden)
    pictures = draw_completed([("image", true[:_SHOWN]), *shown], subject.dataset.image_shape)
    return Diagnosis(numbers, lines, {"completion.png": draw(numbers), "completed.png": pictures})


def metrics_of(numbers: Mapping[str, Any]) -> dict[str, float]:
    """Take the metrics by which runs are compared: those with half of the pixels hidden."""
    if _HALF not in numbers["hidden"]:
        return {}
    number = numbers["hidden"].index(_HALF)
    return {
        f"{part}_half_{name}": numbers[part][number][measured]
        for part in HIDDEN_PARTS
        for name, measured in _METRICS.items()
        if numbers[part][number][measured] is not None
    }


def draw(numbers: Mapping[str, Any]) -> Figure:
    """Draw accuracy and RMSE against the fraction of pixels hidden, for each hidden part."""
    parts = [name for name in numbers if name != "hidden"]
    has_label = all(row["accuracy_by_pass"] is not None for part in parts for row in numbers[part])
    curves_of_rows = {
        "accuracy (%)": {
            "accuracy_by_pass": "feedforward",
            "accuracy_by_relaxation": "by inference",
        },
        "RMSE of hidden pixels": {
            "rmse_drawn": "predicted class, generated" if has_label else "feedforward",
            "rmse": "by inference",
        },
    }
    if not has_label:
        del curves_of_rows["accuracy (%)"]
    n_rows = len(curves_of_rows)
    figure = Figure(figsize=(4 * len(parts), 3.2 * n_rows), layout="constrained")
    panels = figure.subplots(n_rows, len(parts), sharey="row", squeeze=False)
    fractions = [100 * fraction for fraction in numbers["hidden"]]
    for column, part in enumerate(parts):
        for row, curves in enumerate(curves_of_rows.values()):
            axes = panels[row][column]
            for (key, label), style in zip(curves.items(), ("o--", "s-"), strict=True):
                values = [each[key] for each in numbers[part]]
                if any(value is not None for value in values):
                    axes.plot(fractions, np.array(values, float), style, label=label)
            axes.grid(alpha=0.3)
            axes.set_xlabel(f"{part} pixels hidden (%)")
    for axes, label in zip(panels[:, 0], curves_of_rows, strict=True):
        axes.set_ylabel(label)
        axes.legend()
    return figure


def draw_completed(
    rows: Sequence[tuple[str, np.ndarray]],
    image_shape: tuple[int, int, int],
    headings: Sequence[str] = (),
) -> Figure:
    """Draw rows of images, each with its name, under columns' headings, if they have any."""
    n_columns = len(rows[0][1])
    figure = Figure(figsize=(1.0 * n_columns + 1.6, 1.0 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), n_columns, squeeze=False)
    for cells, (name, images) in zip(panels, rows, strict=True):
        for axes, image in zip(cells, images, strict=False):
            picture = np.clip(image, 0, 1).reshape(image_shape)
            axes.imshow(picture[..., 0] if image_shape[2] == 1 else picture, "gray", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
        cells[0].set_ylabel(name, rotation=0, ha="right", va="center")
    for axes, heading in zip(panels[0], headings, strict=False):
        axes.set_title(heading, fontsize=9)
    return figure


def _measure(
    made: Completion, labels: np.ndarray, true: np.ndarray, hidden: np.ndarray
) -> dict[str, float | None]:
    accuracies = {
        f"accuracy_by_{way}": None if classes is None else accuracy(np.asarray(classes), labels)
        for way, classes in (("pass", made.by_pass), ("relaxation", made.by_inference))
    }
    return {
        **accuracies,
        "rmse": _rmse(np.asarray(made.images), true, hidden),
        "rmse_drawn": _rmse(np.asarray(made.generated), true, hidden),
    }


def _in_words(row: Mapping[str, float | None]) -> str:
    words = []
    for name, way in (("pass", "feedforward"), ("relaxation", "by inference")):
        if (accuracy := row[f"accuracy_by_{name}"]) is not None:
            words.append(f"{accuracy:.2f} % {way}")
    if row["rmse"] is not None:
        words.append(f"RMSE {row['rmse']:.3f}")
    return ", ".join(words)


def _rows_of(
    part: str, fraction: float, made: Completion, true: np.ndarray, hidden: np.ndarray
) -> list[tuple[str, np.ndarray]]:
    """Take the first images as they are shown: hidden, inferred, and generated."""
    masked = np.where(hidden[:_SHOWN], 0.5, true[:_SHOWN])
    return [
        (f"{part} {100 * fraction:g} % hidden", masked),
        ("inferred", np.asarray(made.images)[:_SHOWN]),
        ("generated", np.asarray(made.generated)[:_SHOWN]),
    ]


def _rmse(made: np.ndarray, true: np.ndarray, hidden: np.ndarray) -> float | None:
    """Compute the RMSE of hidden pixels, on the scale where black is 0 and white is 1."""
    return float(np.sqrt(np.mean((made - true)[hidden] ** 2))) if hidden.any() else None
