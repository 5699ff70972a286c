"""What the inference of a trained model does, measured and drawn: one file for each diagnostic.

A diagnostic is a module here that offers

- `NEEDS`: what a model must have for there to be anything to measure, some of "inference", "a
  label" and "latent units", or "samples" that are asked for,
- `RELAXES`: which of the relaxations in `convergence.follow_energies` its steps are of,
- `metrics_of(numbers)`, if any of its numbers are metrics by which runs are compared,
- `diagnose(subject)`: its `Diagnosis`, which is numbers, lines of text and figures by file name.

It is found by its file's name: adding one is adding a file.
"""

import dataclasses
import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bpc_cli.files import JsonObject
from bpc_cli.plots.saving import save_figure

if TYPE_CHECKING:  # so that names can be listed without JAX
    from jaxtyping import Array, PRNGKeyArray
    from matplotlib.figure import Figure

    from bpc_cli.core.inference import Inference
    from bpc_cli.core.langevin import Langevin
    from bpc_cli.core.models import Model
    from bpc_cli.data.datasets import Dataset
    from bpc_cli.evaluation.convergence import Convergence


_FOLLOWED = 100  # images, enough for a mean energy


class Sampling(NamedTuple):
    """How images are sampled.

    Attributes:
        n_samples: how many.
        langevin: the steps of a chain.
        burn_in: how many of them come before autocorrelation is measured.
        label_known: whether labels are clamped.
    """

    n_samples: int
    langevin: "Langevin"
    burn_in: int
    label_known: bool


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
        sampling: how images are sampled.
    """

    model: "Model"
    inference: "Inference"
    key: "PRNGKeyArray"
    dataset: "Dataset"
    n_images: int
    image: int
    hidden: Sequence[float]
    sampling: Sampling

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


def needs(name: str) -> tuple[str, ...]:
    """List what a model must have for a diagnostic of it."""
    return importlib.import_module(f"{__name__}.{name}").NEEDS


def metrics_of(numbers: JsonObject) -> dict[str, float]:
    """Take the metrics by which runs are compared from the numbers of diagnostics, by name."""
    metrics = {}
    for name, own in numbers.items():
        module = importlib.import_module(f"{__name__}.{name}")
        if hasattr(module, "metrics_of"):
            metrics |= module.metrics_of(own)
    return metrics


def find_steps(subject: Subject, chosen: Sequence[str]) -> "dict[str, Convergence]":
    """Find how many steps each chosen diagnostic's inference takes to converge.

    Args:
        subject: what is diagnosed; its inference has the most steps that are to be taken.
        chosen: some of `names()`.

    Returns:
        By name, for those that follow inference.
    """
    import numpy as np

    from bpc_cli.evaluation.convergence import find_convergence, follow_energies

    relaxes = {name: importlib.import_module(f"{__name__}.{name}").RELAXES for name in chosen}
    if subject.inference.n_steps == 0 or not any(relaxes.values()):
        return {}
    images, labels = (each[:_FOLLOWED] for each in subject.test_images())
    curves = follow_energies(subject.model, images, labels, subject.inference, subject.key)
    return {
        name: find_convergence([np.asarray(curves[which]) for which in own])
        for name, own in relaxes.items()
        if own
    }


def diagnose(
    subject: Subject,
    chosen: Sequence[str],
    directory: Path | None,
    n_steps: Mapping[str, int] | None = None,
    formats: Sequence[str] = (),
) -> tuple[JsonObject, list[str]]:
    """Make the diagnostics that are chosen.

    Args:
        subject: what is diagnosed.
        chosen: some of `names()`.
        directory: where figures go; None: none are kept.
        n_steps: inference steps by name, where they are not the subject's own.
        formats: formats of figures beside PNG.

    Returns:
        Numbers by name, and lines that say what they come to.

    Raises:
        UserError: if one cannot be made of this subject.
    """
    numbers, lines = {}, []
    own_steps = subject.inference.n_steps
    for name in chosen:
        steps = (n_steps or {}).get(name, own_steps)
        inference = dataclasses.replace(subject.inference, n_steps=steps)
        diagnosis = importlib.import_module(f"{__name__}.{name}").diagnose(
            subject._replace(inference=inference)
        )
        numbers[name] = diagnosis.numbers
        lines += [f"{name}: {line}" for line in diagnosis.lines]
        for file_name, figure in diagnosis.figures.items() if directory is not None else ():
            save_figure(figure, directory / file_name, formats, dpi=110)
    return numbers, lines
