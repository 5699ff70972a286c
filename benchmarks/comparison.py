"""`make table-algorithms`: runs of several algorithms beside each other, as tables.

Every run of a sweep, each of several seeds, is tested feedforward and by inference; numbers are
means over seeds with 95 % bootstrap intervals, and differences are paired by seed with the first's.
"""

import argparse
import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from steps import best_of, compile_epoch

from bpc_cli.cli.build import build_inference
from bpc_cli.cli.restore import restore_models
from bpc_cli.core.ensembles import stack, take
from bpc_cli.core.inference import Inference
from bpc_cli.core.models import Model
from bpc_cli.data.datasets import Dataset, load_dataset
from bpc_cli.diagnostics.completion import complete, hidden_pixels
from bpc_cli.evaluation.classification import classify_by_energy, classify_by_inference
from bpc_cli.evaluation.feedforward import evaluate_ensemble
from bpc_cli.evaluation.metrics import accuracy, class_means, measure_test
from bpc_cli.evaluation.statistics import Spread, spread
from bpc_cli.options.algorithms import ALGORITHMS
from bpc_cli.options.check import check_saved_config
from bpc_cli.options.names import HIDDEN_PARTS
from bpc_cli.options.schema import TrainConfig
from bpc_cli.runs.checkpoints.checkpoint import open_checkpoint

# Inference at test time, chosen on validation images.
TEST_STEPS = 100
TEST_OPTIMISER = {"activity": "adam", "activity_args": {}, "activity_lr": 0.05}
# Energy-based classification infers once for each of ten labels, and completion is measured three
# times, so they are given fewer images: the test set's first.
N_BY_ENERGY = 1_000
N_COMPLETED = 2_000
HIDDEN_FRACTION = 0.5
# What is measured of whole images, and with how many decimals.
TESTS = {"feedforward": 2, "by inference": 2, "energy-based": 2, "generation error": 4}

Numbers = dict[str, list[float]]


def main() -> None:
    sweep, jobs, dataset = read_command_line(__doc__)
    configs, numbers = {}, {}
    for job in jobs:
        config, models = restore_seeds(job)
        name = config.algorithm.name
        configs[name] = config
        numbers[name] = test_seeds(config, models, dataset)
        (sweep / "numbers.json").write_text(json.dumps(numbers, indent=1))
    seconds = time_epochs(configs, dataset)
    tables = "\n\n".join([table_of(numbers, seconds), differences_of(numbers)])
    (sweep / "tables.md").write_text(tables + "\n")
    print(tables)


def read_command_line(description: str | None) -> tuple[Path, list[Path], Dataset]:
    """Read which sweep is asked for: its directory, its finished jobs' in order, and the data."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", default="mnist")
    parser.add_argument(
        "--archives",
        default=os.environ.get("BPC_MNIST_ARCHIVES"),
        help="folder with the data set's original archives",
    )
    arguments, jobs = read_jobs(parser)
    dataset = load_dataset(arguments.data, archive_dir=arguments.archives)
    return arguments.sweep, jobs, dataset


def read_jobs(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, list[Path]]:
    """Read a command line that names a sweep, and find the sweep's finished jobs, in order."""
    parser.add_argument("sweep", type=Path, help="a sweep's directory; its jobs are compared")
    arguments = parser.parse_args()
    jobs = [summary.parent for summary in arguments.sweep.glob("*/summary.json")]
    if not jobs:
        parser.error(f"{arguments.sweep} holds no finished job")
    return arguments, sorted(jobs, key=lambda job: int(job.name))


def restore_seeds(job: Path) -> tuple[TrainConfig, list[Model]]:
    """Restore the model of every seed of a run."""
    checkpoint, _ = open_checkpoint(job)
    config = check_saved_config(checkpoint.header["config"], checkpoint.path)
    models = jax.device_get(restore_models(checkpoint, config))
    return config, [take(models, number) for number in range(config.n_seeds)]


def test_seeds(config: TrainConfig, models: Sequence[Model], dataset: Dataset) -> Numbers:
    """Test every seed's model, and list each number over seeds."""
    by_seed = []
    for number, model in enumerate(models):
        by_seed.append(test_model(config, model, dataset))
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in by_seed[-1].items())
        print(f"{config.algorithm.name}, seed {config.seed + number}: {numbers}", flush=True)
    return {name: [numbers[name] for numbers in by_seed] for name in by_seed[0]}


def test_model(config: TrainConfig, model: Model, dataset: Dataset) -> dict[str, float]:
    """Test one seed's model; one that does not infer, feedforward alone."""
    images, labels = jnp.asarray(dataset.test_images), dataset.test_labels
    means = class_means(dataset.test_images, labels, dataset.n_classes)
    [test] = evaluate_ensemble(stack([model]), images, labels, means)
    measured = measure_test(test)
    numbers = {
        "feedforward": measured["test_accuracy"],
        "generation error": measured["generation_error"],
    }
    inference, key = build_test_inference(config), jax.random.PRNGKey(config.seed)
    infers = inference.n_steps > 0
    if infers:
        predicted, _ = classify_by_inference(model, images, inference, key)
        numbers["by inference"] = accuracy(np.asarray(predicted), labels)
        numbers["energy-based"] = test_by_energy(config, model, dataset)
    # What is hidden is to be generated as well as classified, so the generator has its say.
    inference = build_test_inference(config, **equal_weights(config))
    images, labels = images[:N_COMPLETED], labels[:N_COMPLETED]
    for part in HIDDEN_PARTS:
        hidden = hidden_pixels(part, HIDDEN_FRACTION, dataset.image_shape, len(images))
        made = complete(model, images, jnp.asarray(hidden), inference, key)
        numbers[f"{part}, feedforward"] = accuracy(np.asarray(made.by_pass), labels)
        if infers:
            numbers[f"{part}, by inference"] = accuracy(np.asarray(made.by_inference), labels)
    return numbers


def test_by_energy(config: TrainConfig, model: Model, dataset: Dataset) -> float:
    """Measure one seed's accuracy of energy-based classification, on the first test images."""
    predicted = classify_by_energy(
        model,
        jnp.asarray(dataset.test_images[:N_BY_ENERGY]),
        build_test_inference(config),
        jax.random.PRNGKey(config.seed),
        block_size=250,
    )
    return accuracy(np.asarray(predicted), dataset.test_labels[:N_BY_ENERGY])


def build_test_inference(config: TrainConfig, **energy_weights: float) -> Inference:
    """Build how a trained model's activities relax in these tests."""
    return build_inference(
        dataclasses.replace(
            config,
            optim=dataclasses.replace(config.optim, **TEST_OPTIMISER),
            inference=dataclasses.replace(config.inference, n_steps=TEST_STEPS),
            **energy_weights,
        )
    )


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


def table_of(numbers: dict[str, Numbers], seconds: dict[str, float]) -> str:
    """Write every algorithm's numbers as a Markdown table."""
    parts = [f"{part} half hidden" if part != "random" else "random half" for part in HIDDEN_PARTS]
    rows = [["", *TESTS, *parts, "s per epoch"]]
    for algorithm, own in numbers.items():
        cells = [cell(own, name, decimals) for name, decimals in TESTS.items()]
        for part in HIDDEN_PARTS:
            ways = ("feedforward", "by inference")
            feedforward, inferred = (cell(own, f"{part}, {way}", 1) for way in ways)
            cells.append(f"{feedforward} → {inferred}" if inferred else feedforward)
        rows.append([f"`{algorithm}`", *cells, f"{seconds[algorithm]:.1f}"])
    return markdown(rows)


def differences_of(numbers: dict[str, Numbers]) -> str:
    """Write how the first algorithm's numbers differ from each other one's, paired by seed."""
    first, *others = numbers
    rows = [[f"`{first}` less", "feedforward", "generation error", *HIDDEN_PARTS]]
    for other in others:
        ours, theirs = numbers[first], numbers[other]
        cells = [
            difference(ours[name], theirs[name], TESTS[name])
            for name in ("feedforward", "generation error")
        ]
        for part in HIDDEN_PARTS:
            best = theirs.get(f"{part}, by inference", theirs[f"{part}, feedforward"])
            cells.append(difference(ours[f"{part}, by inference"], best, 1))
        rows.append([f"`{other}`", *cells])
    return markdown(rows)


def in_words(values: Spread, decimals: int, sign: str = "") -> str:
    """Write a mean and its interval."""
    words = f"{values.mean:{sign}.{decimals}f}"
    if values.low is not None and values.high is not None:
        words += f" [{values.low:{sign}.{decimals}f}, {values.high:{sign}.{decimals}f}]"
    return words


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Write a table whose first row is its head."""
    head, *body = rows
    rows = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def difference(ours: Sequence[float], theirs: Sequence[float], decimals: int) -> str:
    """Write how numbers of the same seeds differ."""
    return in_words(spread([a - b for a, b in zip(ours, theirs, strict=True)]), decimals, "+")


def cell(numbers: Numbers, name: str, decimals: int) -> str:
    """Write an algorithm's number over seeds; nothing where it was not measured."""
    return in_words(spread(numbers[name]), decimals) if name in numbers else ""


if __name__ == "__main__":
    main()
