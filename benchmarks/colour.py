"""`make table-cifar`: every algorithm at `small_cifar10`'s size, beside each other as a table.

Numbers are means over seeds with 95 % bootstrap intervals, and differences are paired by seed with
the first algorithm's. Seconds are those of a run's fastest epoch.
"""

import argparse
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from comparison import (
    Numbers,
    build_test_inference,
    cell,
    difference,
    markdown,
    read_jobs,
    restore_seeds,
)

from bpc_cli.core.models import Model
from bpc_cli.data.datasets import Dataset, load_dataset
from bpc_cli.evaluation.classification import classify_by_inference
from bpc_cli.evaluation.metrics import accuracy
from bpc_cli.options.schema import TrainConfig

N_BY_INFERENCE = 1_000  # of the test images, the first
COLUMNS = {"feedforward": 2, "by inference": 1, "generation error": 4, "s per epoch": 0}
COMPARED = ("feedforward", "generation error")


def main() -> None:
    arguments, jobs = read_jobs(argparse.ArgumentParser(description=__doc__))
    restored = [restore_seeds(job) for job in jobs]
    dataset = dataset_of(restored[0][0])
    numbers: dict[str, Numbers] = {}
    for job, (config, models) in zip(jobs, restored, strict=True):
        summary = json.loads((job / "summary.json").read_text())
        own = numbers.setdefault(config.algorithm.name, {})
        for line, model in zip(summary.get("seeds", [summary["final"]]), models, strict=True):
            measured = {
                "feedforward": line["test_accuracy"],
                "generation error": line["generation_error"],
                "s per epoch": fastest_epoch(job),
            }
            if config.inference.n_steps:
                measured["by inference"] = test_by_inference(config, model, dataset)
            for name, value in measured.items():
                own.setdefault(name, []).append(value)
        print(f"{config.algorithm.name}, seed {config.seed}: {own}", flush=True)
    tables = f"{table_of(numbers)}\n\n{differences_of(numbers)}"
    (arguments.sweep / "tables.md").write_text(f"{tables}\n")
    print(tables)


def dataset_of(config: TrainConfig) -> Dataset:
    """Load the images that runs were trained on."""
    data = config.data
    return load_dataset(
        data.name, data_dir=data.dir, image_size=data.image_size, channels=data.channels
    )


def test_by_inference(config: TrainConfig, model: Model, dataset: Dataset) -> float:
    """Measure the accuracy of inferred labels on the first test images."""
    images = jnp.asarray(dataset.test_images[:N_BY_INFERENCE])
    key = jax.random.PRNGKey(config.seed)
    predicted, _ = classify_by_inference(
        model, images, build_test_inference(config), key, block_size=250
    )
    return accuracy(np.asarray(predicted), dataset.test_labels[:N_BY_INFERENCE])


def fastest_epoch(run: Path) -> float:
    """Read how long a run's fastest epoch took, which is from one test point to the next."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    ends = [line["seconds"] for line in lines if line.get("test_accuracy") is not None]
    return float(np.diff(ends).min())


def table_of(numbers: dict[str, Numbers]) -> str:
    """Write every algorithm's numbers as a Markdown table."""
    rows = [["", *COLUMNS]]
    for name, own in numbers.items():
        cells = [cell(own, column, decimals) for column, decimals in COLUMNS.items()]
        rows.append([f"`{name}`", *cells])
    return markdown(rows)


def differences_of(numbers: dict[str, Numbers]) -> str:
    """Write how the first algorithm's numbers differ from each other one's, paired by seed."""
    first, *others = numbers
    rows = [[f"`{first}` minus", *COMPARED]]
    for other in others:
        pairs = [(numbers[first][name], numbers[other][name], COLUMNS[name]) for name in COMPARED]
        rows.append([f"`{other}`", *(difference(*pair) for pair in pairs)])
    return markdown(rows)


if __name__ == "__main__":
    main()
