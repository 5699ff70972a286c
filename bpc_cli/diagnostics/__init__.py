"""What the inference of a trained model does, measured and drawn: one file for each diagnostic.

A diagnostic is a module here that offers

- `NEEDS_INFERENCE`: whether there is nothing to measure in a model that does not infer,
- `diagnose(subject)`: its `Diagnosis`, which is numbers, lines of text and figures by file name.

It is found by its file's name: adding one is adding a file.
"""

import importlib
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bpc_cli.files import JsonObject

if TYPE_CHECKING:  # so that names can be listed without JAX
    from jaxtyping import Array, PRNGKeyArray
    from matplotlib.figure import Figure

    from bpc_cli.core.inference import Inference
    from bpc_cli.core.models import Model
    from bpc_cli.data.datasets import Dataset


class Subject(NamedTuple):
    """What is diagnosed.

    Attributes:
        model: the model.
        inference: how activities are initialised and relaxed.
        key: fixes noise that they are initialised by.
        dataset: the data set to test on.
        n_images: how many test images to use, the first.
        image: the number of the test image that is looked at alone.
        hidden: the fractions of pixels that completion hides.
    """

    model: "Model"
    inference: "Inference"
    key: "PRNGKeyArray"
    dataset: "Dataset"
    n_images: int
    image: int
    hidden: Sequence[float]

    def test_images(self) -> "tuple[Array, Array]":
        """Take the test images to use, and their labels."""
        import jax.numpy as jnp

        n = self.n_images
        return jnp.asarray(self.dataset.test_images[:n]), jnp.asarray(self.dataset.test_labels[:n])


class Diagnosis(NamedTuple):
    """What a diagnostic found.

    Attributes:
        numbers: anything that JSON can hold.
        lines: what the numbers come to, in words.
        figures: by file name.
    """

    numbers: Any
    lines: list[str]
    figures: "dict[str, Figure]"


def names() -> list[str]:
    """List the diagnostics that there are."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def needs_inference(name: str) -> bool:
    """Tell whether a diagnostic has nothing to measure in a model that does not infer."""
    return importlib.import_module(f"{__name__}.{name}").NEEDS_INFERENCE


def diagnose(
    subject: Subject, chosen: Sequence[str], directory: Path | None
) -> tuple[JsonObject, list[str]]:
    """Make the diagnostics that are chosen.

    Args:
        subject: what is diagnosed.
        chosen: some of `names()`.
        directory: where figures go; None: none are kept.

    Returns:
        Numbers by name, and lines that say what they come to.

    Raises:
        UserError: if one cannot be made of this subject.
    """
    numbers, lines = {}, []
    for name in chosen:
        diagnosis = importlib.import_module(f"{__name__}.{name}").diagnose(subject)
        numbers[name] = diagnosis.numbers
        lines += [f"{name}: {line}" for line in diagnosis.lines]
        for file_name, figure in diagnosis.figures.items() if directory is not None else ():
            figure.savefig(directory / file_name, dpi=110)
    return numbers, lines
