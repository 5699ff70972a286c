"""Figures of merit of a checkpoint's networks, by one pass and by relaxation, and their table."""

from statistics import fmean
from typing import Any

import jax.numpy as jnp
import numpy as np

from bpc_cli.core.models import Amortiser, Generator
from bpc_cli.core.rules import Rules
from bpc_cli.data.datasets import Dataset
from bpc_cli.data.pixels import pixel_scale
from bpc_cli.evaluation.by_inference import (
    draw_by_relaxation,
    flops_per_image,
    name_by_free_label,
    name_by_lowest_energy,
    timed,
)
from bpc_cli.evaluation.classification import (
    NetworkTest,
    accuracy,
    class_means,
    confusion_matrix,
    generation_error,
    per_class_accuracy,
    predict_classes,
)
from bpc_cli.evaluation.statistics import spread
from bpc_cli.options.algorithms import ALGORITHMS
from bpc_cli.options.schema import TrainConfig

LITTLE = 0.02  # a move of activities so small, relative to where they start, is next to nothing
_FIGURES = (
    "test_accuracy",
    "generation_error",
    "relaxed_accuracy",
    "lowest_energy_accuracy",
    "relaxed_generation_error",
    "activity_change",
)


def describe_test(test: NetworkTest, seed: int, dataset: Dataset) -> dict[str, Any]:
    """Put one seed's figures of merit under their names."""
    confusion = confusion_matrix(test.predicted, dataset.test_labels, dataset.n_classes)
    accuracies = per_class_accuracy(confusion)
    return {
        "seed": seed,
        "test_accuracy": test.accuracy,
        "per_class_accuracy": dict(zip(dataset.class_names, accuracies, strict=True)),
        "generation_error": test.generation_error,
        "confusion": confusion.tolist(),
    }


def describe_relaxation(
    networks: tuple[Generator, Amortiser], rules: Rules, trained: TrainConfig, dataset: Dataset
) -> dict[str, Any]:
    """Test one seed's networks by relaxation: figures of merit, and what each way costs.

    Args:
        networks: generator and amortiser.
        rules: how activities relax.
        trained: the config that they were trained with.
        dataset: the data set to test on.
    """
    generator, amortiser = networks
    images, labels = jnp.asarray(dataset.test_images), dataset.test_labels
    scale = pixel_scale(trained.data.mean, trained.data.std)
    arguments = (networks, images, scale, rules, trained.batch_size)
    (by_label, moved), relaxed_seconds = timed(name_by_free_label, *arguments)
    # Under cross-entropy a free label's energy has no minimum to relax to.
    label_relaxes = rules.label_loss == "squared"
    by_energy, energy_seconds = timed(name_by_lowest_energy, *arguments)
    _, pass_seconds = timed(predict_classes, amortiser, images, scale)
    drawn = np.asarray(draw_by_relaxation(networks, scale, rules, trained.batch_size))
    means = class_means(dataset.test_images, labels, dataset.n_classes)
    algorithm = ALGORITHMS[rules.algorithm]
    sizes = [layer.weight.shape[1] for layer in generator.layers] + [images.shape[1]]
    flops = flops_per_image(
        sizes, rules.n_inference_steps, algorithm.generator_infers + algorithm.amortiser_infers
    )
    seconds = {
        "feedforward": pass_seconds,
        "relaxed": relaxed_seconds,
        "lowest_energy": energy_seconds,
    }
    return {
        "relaxed_accuracy": accuracy(np.asarray(by_label), labels) if label_relaxes else None,
        "lowest_energy_accuracy": accuracy(np.asarray(by_energy), labels),
        "relaxed_generation_error": generation_error(drawn, means),
        "activity_change": float(np.mean(moved)) if generator.depth > 1 else None,
        "cost_per_image": {
            way: {"flops": flops[way], "milliseconds": 1e3 * spent / len(images)}
            for way, spent in seconds.items()
        },
    }


def sum_up(by_seed: list[dict[str, Any]]) -> dict[str, Any]:
    """Make one network's figures of several seeds': means, and counts added up."""
    if len(by_seed) == 1:
        return by_seed[0]
    accuracies = {
        name: [figures["per_class_accuracy"][name] for figures in by_seed]
        for name in by_seed[0]["per_class_accuracy"]
    }
    spreads = {
        name: spread([figures[name] for figures in by_seed])
        for name in by_seed[0]
        if name in _FIGURES and by_seed[0][name] is not None
    }
    none = {name: None for name in _FIGURES if name in by_seed[0] and name not in spreads}
    return {
        **{name: figure.mean for name, figure in spreads.items()},
        **none,
        "per_class_accuracy": {
            name: None if None in values else fmean(values) for name, values in accuracies.items()
        },
        "confusion": np.sum([figures["confusion"] for figures in by_seed], axis=0).tolist(),
        **(
            {"cost_per_image": by_seed[0]["cost_per_image"]}
            if "cost_per_image" in by_seed[0]
            else {}
        ),
        "spread": {name: figure._asdict() for name, figure in spreads.items()},
        "seeds": by_seed,
    }


def table_of(metrics: dict[str, Any]) -> str:
    """Write an evaluation's figures as a table."""
    seeds = metrics.get("seeds", [])
    rows = [
        ("checkpoint", f"{metrics['checkpoint']} (iteration {metrics['iteration']})"),
        ("data set", f"{metrics['data_set']}, {metrics['test_examples']} test images"),
        (
            "test accuracy",
            f"{metrics['test_accuracy']:.2f} %{_spread(metrics, 'test_accuracy', 2)}",
        ),
    ]
    for figures in seeds:
        rows.append((f"  seed {figures['seed']}", f"{figures['test_accuracy']:.2f} %"))
    for name, share in metrics["per_class_accuracy"].items():
        rows.append((f"  class {name}", "no images" if share is None else f"{share:.2f} %"))
    error = f"{metrics['generation_error']:.4f}{_spread(metrics, 'generation_error', 4)}"
    rows.append(("generation error", f"{error} (RMSE, pixels in [0, 1])"))
    for figures in seeds:
        rows.append((f"  seed {figures['seed']}", f"{figures['generation_error']:.4f}"))
    if metrics["inference_steps"]:
        rows += _relaxation_rows(metrics)
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _relaxation_rows(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    figures = {
        "relaxed_accuracy": ("  accuracy, label free", 1.0, 2, " %"),
        "lowest_energy_accuracy": ("  accuracy, lowest energy", 1.0, 2, " %"),
        "relaxed_generation_error": ("  generation error", 1.0, 4, ""),
        "activity_change": ("  activities moved by", 100.0, 2, " % of where they started"),
    }
    rows = [("by relaxation", f"{metrics['inference_steps']} steps")]
    for name, (words, factor, decimals, unit) in figures.items():
        if metrics[name] is not None:
            rows.append((words, f"{factor * metrics[name]:.{decimals}f}{unit}"))
    if (moved := metrics["activity_change"]) is not None and moved < LITTLE:
        rows[-1] = (rows[-1][0], f"{rows[-1][1]}: inference does next to nothing")
    for way, words in (
        ("feedforward", "a pass"),
        ("relaxed", "label free"),
        ("lowest_energy", "lowest energy"),
    ):
        cost = metrics["cost_per_image"][way]
        spent = f"{cost['flops'] / 1e6:,.2f} MFLOP, {cost['milliseconds']:.3f} ms per image"
        rows.append((f"  cost, {words}", spent))
    return rows


def _spread(metrics: dict[str, Any], name: str, decimals: int) -> str:
    if "spread" not in metrics:
        return ""
    figure = metrics["spread"][name]
    low, high = (f"{figure[end]:.{decimals}f}" for end in ("low", "high"))
    return f" ± {figure['std']:.{decimals}f}, mean in [{low}, {high}] at 95 % ({figure['n']} seeds)"
