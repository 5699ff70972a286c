"""Is inference doing anything? Energies, movement and gradients of activities, step by step."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, Integer, PRNGKeyArray, UInt8
from matplotlib.figure import Figure

from bpc_cli.core.batching import in_blocks
from bpc_cli.core.clamping import Clamping, States, clamp_both
from bpc_cli.core.energy import EnergyWeights, energy_terms
from bpc_cli.core.inference import Inference, infer, relative_distance
from bpc_cli.core.models import Model
from bpc_cli.core.relaxation import root_mean_square
from bpc_cli.diagnostics import Diagnosis, Subject
from bpc_cli.evaluation.parts import in_parts
from bpc_cli.evaluation.results import count_steps, verdict_on
from bpc_cli.plots.axes import label_log_axis_plainly, label_steps, marker_of

NEEDS = ("inference",)
RELAXES = ("both",)
_CURVES_A_COLUMN = 18  # of the legend


class Trajectory(NamedTuple):
    """How each image's activities relax, before each inference step and after the last.

    Attributes:
        generator_terms: the energy's terms of the generator, z_0 to the image, unweighted.
        amortiser_terms: the same of the amortiser, the label to the last hidden layer.
        from_start: how far activities are from where they are initialised, ‖z - z_0‖ / ‖z_0‖.
        from_end: how far they are from where they end, ‖z - z_end‖ / ‖z_end‖.
        gradient: the root mean square of the energy's gradient with respect to them.
    """

    generator_terms: Float[Array, "images times depth"]
    amortiser_terms: Float[Array, "images times depth"]
    from_start: Float[Array, "images times"]
    from_end: Float[Array, "images times"]
    gradient: Float[Array, "images times"]


@eqx.filter_jit
def follow_inference(
    model: Model,
    images: UInt8[Array, "images pixels"],
    labels: Integer[Array, " images"],
    inference: Inference,
    key: PRNGKeyArray | None = None,
    block_size: int = 250,
) -> Trajectory:
    """Follow inference as in training: image and label clamped, and all steps taken.

    Args:
        model: the model.
        images: flattened, worked on in blocks.
        labels: their class numbers.
        inference: how activities are initialised and relaxed, whatever its tolerance.
        key: fixes noise that they are initialised by.
        block_size: the images of a block.
    """
    all_steps = eqx.tree_at(lambda i: i.tolerance, inference, None, is_leaf=lambda x: x is None)
    key = jax.random.PRNGKey(0) if key is None else key

    def of_image(clamping: Clamping, own: PRNGKeyArray) -> Trajectory:
        start = infer(model, clamping, all_steps, own)
        first, last = start.initial.activities, start.states.activities

        def observe(free: States, gradient: States) -> Trajectory:
            forward, backward = energy_terms(
                model, clamping.complete(free).layers, EnergyWeights(1.0, 1.0)
            )
            return Trajectory(
                forward,
                backward,
                relative_distance(free.activities, first),
                relative_distance(free.activities, last),
                root_mean_square(gradient.activities),
            )

        return infer(model, clamping, all_steps, own, observe).relaxation.observed

    def of_block(pixels: Array, labels: Array) -> Trajectory:
        keys = jax.random.split(key, len(labels))
        clampings = clamp_both(model, model.one_hot(labels), model.to_states(pixels))
        return jax.vmap(of_image)(clampings, keys)

    return in_blocks(of_block, [images, labels], block_size)


def diagnose(subject: Subject) -> Diagnosis:
    """Follow inference on the test images, with image and label clamped, as in training."""
    images, labels = subject.test_images()
    trajectory = in_parts(
        lambda pixels, own: follow_inference(
            subject.model, pixels, own, subject.inference, subject.key
        ),
        [images, labels],
        "following inference",
    )
    numbers = {
        name: {"mean": rows.mean(axis=0).tolist(), "std": rows.std(axis=0).tolist()}
        for name, rows in ((name, np.asarray(rows)) for name, rows in trajectory._asdict().items())
    }
    moved, gradients = numbers["from_start"]["mean"][-1], numbers["gradient"]["mean"]
    clamped = "image and label" if subject.model.n_classes else "the image"
    lines = [
        f"with {clamped} clamped, {count_steps(subject.inference.n_steps)} of inference "
        f"move{'s' * (subject.inference.n_steps == 1)} activities by "
        f"{100 * moved:.2f} % of where they are initialised{verdict_on(moved)}"
    ]
    if gradients[0] > 0:
        lines.append(f"the gradient falls to {gradients[-1] / gradients[0]:.3f} of what it was")
    return Diagnosis(numbers, lines, {"inference.png": draw(numbers, subject.model.top)})


def draw(numbers: Mapping[str, Any], top: int = 0) -> Figure:
    """Draw energies per layer and direction, movement and gradient over inference steps.

    Args:
        numbers: means and standard deviations over images.
        top: which state is the model's top one.
    """
    depth = len(numbers["generator_terms"]["mean"][0])
    columns = -(-2 * depth // _CURVES_A_COLUMN)
    figure = Figure(figsize=(12 + 2 * columns, 3.9), layout="constrained")
    energies, movement, gradient = figure.subplots(1, 3)
    _draw_energies(energies, numbers, top)
    for name, style, label in (
        ("from_start", "-", "from where they are initialised"),
        ("from_end", "--", "from where they end"),
    ):
        means, stds = (100 * np.asarray(numbers[name][k]) for k in ("mean", "std"))
        _draw_band(movement, means, stds, style, label=label)
    means, stds = (np.asarray(numbers["gradient"][k]) for k in ("mean", "std"))
    _draw_band(gradient, means, stds, "-")
    movement.set(ylabel="activities moved (%)", ylim=(0, None))
    gradient.set(ylabel="root mean square of the gradient", ylim=(0, None))
    movement.legend(fontsize=8)
    for axes in (energies, movement, gradient):
        label_steps(axes)
        axes.grid(alpha=0.3)
    # Left of all panels, where no curve is, whatever the depth.
    named = energies.get_legend_handles_labels()
    figure.legend(
        *named,
        loc="outside left center",
        ncols=columns,
        fontsize=8,
        title="z0, z1, …: hidden activities,\nfrom the label's side",
        title_fontsize=8,
    )
    moved = numbers["from_start"]["mean"][-1]
    figure.suptitle(
        f"With image and label clamped, activities move by {100 * moved:.2f} % of where they are "
        f"initialised{verdict_on(moved)}"
    )
    return figure


def _draw_energies(axes: Any, numbers: Mapping[str, Any], top: int) -> None:
    """Draw both directions' energy at each state: its colour is the state's, dashes amortise."""
    depth = len(numbers["generator_terms"]["mean"][0])
    states = ["label", *(f"z{number}" for number in range(depth - 1)), "image"]
    all_means = []
    for direction, style, below in (("generator", "-", 1), ("amortiser", "--", 0)):
        means, stds = (np.asarray(numbers[f"{direction}_terms"][k]) for k in ("mean", "std"))
        all_means.append(means)
        for layer in range(depth):
            state = layer + (below if layer >= top else 1 - below)
            label = f"{direction}'s error at {states[state]}"
            colour, width = f"C{state}", 1.5
            if top and state == top:  # the amortiser predicts a shared state from both ends
                label += " from the label" if layer < top else " from the image"
                width = 1.5 if layer < top else 3
            _draw_band(
                *(axes, means[:, layer], stds[:, layer], style),
                label=label,
                color=colour,
                linewidth=width,
            )
    axes.set(ylabel="unweighted energy per image", yscale="log")
    # An amortised activity's own error is 0 at first, and rounding later: neither is to be seen.
    values = np.concatenate(all_means)
    shown = values[values > 1e-6 * values.max(initial=0)]
    if shown.size:
        axes.set_ylim(0.5 * shown.min(), 2 * shown.max())
    label_log_axis_plainly(axes.yaxis)


def _draw_band(axes: Any, means: np.ndarray, stds: np.ndarray, style: str, **more: Any) -> None:
    """Draw a mean over inference steps, and one standard deviation of the images around it."""
    steps = range(len(means))
    (curve,) = axes.plot(steps, means, style, marker=marker_of(means), markersize=4, **more)
    low = np.maximum(means - stds, means * 1e-2)  # a log axis has no room for what is below 0
    axes.fill_between(steps, low, means + stds, color=curve.get_color(), alpha=0.12, linewidth=0)
