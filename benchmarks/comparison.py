"""`make comparison`: runs of several algorithms beside each other, as tables.

Every run of a sweep, each of several seeds, is tested by passes and by relaxation; figures are
means over seeds with 95 % bootstrap intervals, and differences are paired by seed with the first's.
"""

import argparse
import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from bench import best_of

from bpc_cli.cli.build import build
from bpc_cli.core.ensembles import take
from bpc_cli.core.learning import train_chunk
from bpc_cli.data.datasets import Dataset, batch_indices, load_dataset
from bpc_cli.data.pixels import pixel_scale
from bpc_cli.diagnostics.completion import HIDDEN_PARTS, complete, hidden_pixels
from bpc_cli.evaluate import build_test_rules, restore_networks
from bpc_cli.evaluation.by_inference import Networks, name_by_free_label, name_by_lowest_energy
from bpc_cli.evaluation.classification import accuracy, class_means, evaluate_networks
from bpc_cli.evaluation.statistics import Spread, spread
from bpc_cli.options.algorithms import ALGORITHMS
from bpc_cli.options.check import check_saved_config
from bpc_cli.options.evaluation_schema import EvalInferenceConfig
from bpc_cli.options.schema import TrainConfig
from bpc_cli.runs.checkpoint import open_checkpoint

# Chosen on validation images. A search over ten labels costs ten times a relaxation, and completion
# is measured three times, so they are given fewer images: the test set's first.
TEST_INFERENCE = EvalInferenceConfig(
    n_steps=100,
    activity="adam",
    activity_lr=0.05,
    forward_energy_weight=None,
    backward_energy_weight=None,
)
N_SEARCHED = 1_000
N_COMPLETED = 2_000
HIDDEN_SHARE = 0.5

Figures = dict[str, list[float]]


def main() -> None:
    sweep, jobs, dataset = read_command_line(__doc__)
    configs, figures = {}, {}
    for job in jobs:
        config, networks = restore_seeds(job)
        name = config.algorithm.name
        configs[name] = config
        figures[name] = test_seeds(config, networks, dataset)
        (sweep / "figures.json").write_text(json.dumps(figures, indent=1))
    seconds = time_epochs(configs, dataset)
    tables = "\n\n".join([table_of(figures, seconds), differences_of(figures)])
    (sweep / "tables.md").write_text(tables + "\n")
    print(tables)


def read_command_line(description: str | None) -> tuple[Path, list[Path], Dataset]:
    """Read which sweep is asked for: its directory, its finished jobs' in order, and the data."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("sweep", type=Path, help="a sweep's directory; its jobs are compared")
    parser.add_argument("--data", default="mnist")
    parser.add_argument(
        "--archives",
        default=os.environ.get("BPC_MNIST_ARCHIVES"),
        help="folder with the data set's original archives",
    )
    arguments = parser.parse_args()
    jobs = [summary.parent for summary in arguments.sweep.glob("*/summary.json")]
    if not jobs:
        parser.error(f"{arguments.sweep} holds no finished job")
    dataset = load_dataset(arguments.data, archive_dir=arguments.archives)
    return arguments.sweep, sorted(jobs, key=lambda job: int(job.name)), dataset


def restore_seeds(job: Path) -> tuple[TrainConfig, list[Networks]]:
    """Restore the networks of every seed of a run."""
    checkpoint, _ = open_checkpoint(job)
    config = check_saved_config(checkpoint.header["config"], checkpoint.path)
    stacked = jax.device_get(restore_networks(checkpoint, config))
    return config, [take(stacked, k) for k in range(config.n_seeds)]


def test_seeds(config: TrainConfig, networks: Sequence[Networks], dataset: Dataset) -> Figures:
    """Test every seed's networks, and list each figure over seeds."""
    by_seed = []
    for number, each in enumerate(networks):
        by_seed.append(test_networks(config, each, dataset))
        figures = ", ".join(f"{name} {value:.4g}" for name, value in by_seed[-1].items())
        print(f"{config.algorithm.name}, seed {config.seed + number}: {figures}", flush=True)
    return {name: [figures[name] for figures in by_seed] for name in by_seed[0]}


def test_networks(config: TrainConfig, networks: Networks, dataset: Dataset) -> dict[str, float]:
    """Test one seed's networks; those that infer nothing, by passes alone."""
    images, labels = jnp.asarray(dataset.test_images), dataset.test_labels
    scale = pixel_scale(config.data.mean, config.data.std)
    means = class_means(dataset.test_images, labels, dataset.n_classes)
    test = evaluate_networks(*networks, images, labels, means, scale)
    figures = {"accuracy": test.accuracy, "generation error": test.generation_error}
    rules = build_test_rules(config, TEST_INFERENCE)
    infers = rules.n_inference_steps > 0
    if infers:
        named, _ = name_by_free_label(networks, images, scale, rules, config.batch_size)
        figures["relaxed"] = accuracy(np.asarray(named), labels)
        figures["lowest energy"] = search_labels(config, networks, dataset)
    # What is hidden is to be drawn as well as named, so the generator has its say.
    rules = build_test_rules(config, dataclasses.replace(TEST_INFERENCE, **equal_weights(config)))
    for part in HIDDEN_PARTS:
        hidden = hidden_pixels(part, HIDDEN_SHARE, dataset.image_shape, N_COMPLETED)
        made = complete(
            networks, images[:N_COMPLETED], jnp.asarray(hidden), scale, rules, config.batch_size
        )
        right = labels[:N_COMPLETED]
        figures[f"{part}, pass"] = accuracy(np.asarray(made.by_pass), right)
        if infers:
            figures[f"{part}, relaxed"] = accuracy(np.asarray(made.by_relaxation), right)
    return figures


def search_labels(config: TrainConfig, networks: Networks, dataset: Dataset) -> float:
    """Measure one seed's accuracy by the lowest energy of all labels, on the first test images."""
    named = name_by_lowest_energy(
        networks,
        jnp.asarray(dataset.test_images[:N_SEARCHED]),
        pixel_scale(config.data.mean, config.data.std),
        build_test_rules(config, TEST_INFERENCE),
        config.batch_size,
        block_size=250,
    )
    return accuracy(np.asarray(named), dataset.test_labels[:N_SEARCHED])


def equal_weights(config: TrainConfig) -> dict[str, float]:
    """Weigh both directions alike, where activities relax on both."""
    algorithm = ALGORITHMS[config.algorithm.name]
    both = algorithm.generator_infers and algorithm.amortiser_infers
    return dict.fromkeys(("forward_energy_weight", "backward_energy_weight"), 1.0) if both else {}


def time_epochs(configs: dict[str, TrainConfig], dataset: Dataset) -> dict[str, float]:
    """Time an epoch of each algorithm's training steps, one network, in alternation.

    Returns:
        The fastest of three, in seconds.
    """
    epochs = {name: compile_epoch(config, dataset) for name, config in configs.items()}
    took = {name: [] for name in epochs}
    for _ in range(3):
        for name, epoch in epochs.items():
            took[name].append(best_of(epoch, times=1))
    return {name: min(each) for name, each in took.items()}


def compile_epoch(config: TrainConfig, dataset: Dataset) -> Callable[[], None]:
    """Compile and run once the training steps of an epoch of a run's first seed."""
    n_examples = len(dataset.train_images)
    n_steps = n_examples // config.batch_size
    one = dataclasses.replace(config, n_seeds=1)
    rules, state = (take(jax.device_get(each), 0) for each in build(one, n_steps, dataset))
    indices = batch_indices(one.seed, 1, n_steps, n_examples, one.batch_size)
    scale = pixel_scale(one.data.mean, one.data.std)
    images, labels = jnp.asarray(dataset.train_images), jnp.asarray(dataset.train_labels)
    batches = (images, labels, jnp.asarray(indices), jnp.asarray(n_steps), scale, rules)

    def epoch() -> None:
        # The state is donated, so each call is given a copy.
        jax.block_until_ready(train_chunk(batches, jax.tree.map(_copied, state)))

    epoch()
    return epoch


def table_of(figures: dict[str, Figures], seconds: dict[str, float]) -> str:
    """Write every algorithm's figures as a Markdown table."""
    names = ["accuracy", "relaxed", "lowest energy", "generation error"]
    heads = ["a pass", "relaxed", "lowest energy", "generation error"]
    heads += [f"{part} half hidden" if part != "random" else "random half" for part in HIDDEN_PARTS]
    rows = [["", *heads, "s per epoch"]]
    for algorithm, own in figures.items():
        cells = [_cell(own, name, 4 if name == "generation error" else 2) for name in names]
        for part in HIDDEN_PARTS:
            by_pass, relaxed = (_cell(own, f"{part}, {how}", 1) for how in ("pass", "relaxed"))
            cells.append(by_pass if relaxed == "" else f"{by_pass} → {relaxed}")
        rows.append([f"`{algorithm}`", *cells, f"{seconds[algorithm]:.1f}"])
    return markdown(rows)


def differences_of(figures: dict[str, Figures]) -> str:
    """Write how the first algorithm's figures differ from each other one's, paired by seed."""
    first, *others = figures
    rows = [[f"`{first}` less", "a pass", "generation error", *HIDDEN_PARTS]]
    for other in others:
        ours, theirs = figures[first], figures[other]
        cells = [_difference(ours["accuracy"], theirs["accuracy"], 2)]
        cells.append(_difference(ours["generation error"], theirs["generation error"], 4))
        for part in HIDDEN_PARTS:
            best = theirs.get(f"{part}, relaxed", theirs[f"{part}, pass"])
            cells.append(_difference(ours[f"{part}, relaxed"], best, 1))
        rows.append([f"`{other}`", *cells])
    return markdown(rows)


def in_words(figure: Spread, decimals: int, sign: str = "") -> str:
    """Write a mean and its interval."""
    words = f"{figure.mean:{sign}.{decimals}f}"
    if figure.low is not None and figure.high is not None:
        words += f" [{figure.low:{sign}.{decimals}f}, {figure.high:{sign}.{decimals}f}]"
    return words


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Write a table whose first row is its head."""
    head, *body = rows
    rows = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _difference(ours: Sequence[float], theirs: Sequence[float], decimals: int) -> str:
    return in_words(spread([a - b for a, b in zip(ours, theirs, strict=True)]), decimals, "+")


def _cell(figures: Figures, name: str, decimals: int) -> str:
    return in_words(spread(figures[name]), decimals) if name in figures else ""


def _copied(leaf: Any) -> Any:
    return jnp.array(leaf) if isinstance(leaf, np.ndarray) else leaf


if __name__ == "__main__":
    main()
