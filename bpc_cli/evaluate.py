"""bpc-eval: checkpoint → models → metrics on the test set."""

import contextlib
import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

from bpc_cli import diagnostics
from bpc_cli.cli.command_line import run_command
from bpc_cli.cli.jobs import Job, one_by_one
from bpc_cli.errors import UserError
from bpc_cli.files import expanded, write_json
from bpc_cli.options.check import check_data_name, check_saved_config, unknown_choice
from bpc_cli.options.evaluation_schema import EvalConfig

# JAX is imported inside functions, so that completing or rejecting a command line takes no time.
if TYPE_CHECKING:
    from bpc_cli.core.models import Model
    from bpc_cli.data.datasets import Dataset
    from bpc_cli.evaluation.metrics import NetworkTest
    from bpc_cli.evaluation.results import Evaluation, SeedResult
    from bpc_cli.options.schema import TrainConfig
    from bpc_cli.runs.checkpoint import Checkpoint

_METRICS = "metrics.json"


def main() -> None:
    """Run the `bpc-eval` command."""
    run_command(
        "bpc-eval",
        "eval",
        EvalConfig,
        one_by_one(evaluate),
        about="bpc-eval RUN: evaluate a trained network on its data set's test split.\n"
        "Prints a table; writes metrics.json, confusion.png and samples.png under outputs/eval/.",
        positional="checkpoint",
    )


def evaluate(job: Job) -> None:
    """Evaluate a checkpoint as a job says: print a table and leave metrics and figures.

    Raises:
        UserError: if the checkpoint cannot be used, or the data set does not fit it.
    """
    import jax

    from bpc_cli.cli.build import build_test_inference
    from bpc_cli.cli.restore import restore_models
    from bpc_cli.core.ensembles import take
    from bpc_cli.evaluation.results import Evaluation
    from bpc_cli.runs.checkpoint import open_checkpoint
    from bpc_cli.runs.device import configure_jax

    config, directory = job.config, job.directory
    if (directory / _METRICS).exists():
        raise UserError(f"{directory} already holds an evaluation: choose another hydra.run.dir")
    configure_jax(**dataclasses.asdict(config.compute))
    checkpoint, warning = open_checkpoint(expanded(config.checkpoint), config.which)
    trained = check_saved_config(checkpoint.header["config"], checkpoint.path)
    models = restore_models(checkpoint, trained)
    inference = build_test_inference(trained, config)
    chosen = choose_diagnostics(config.diagnostics, infers=inference.n_steps > 0)
    dataset = load_test_set(config, trained, checkpoint)
    tests = test_feedforward(models, dataset)
    how = (inference, jax.random.PRNGKey(trained.seed), dataset)
    on_host, results, lines = jax.device_get(models), [], []
    for number, test in enumerate(tests):
        subject = diagnostics.Subject(
            take(on_host, number), *how, **dataclasses.asdict(config.diagnosis)
        )
        result = describe_seed(subject, trained.seed + number, test)
        if chosen:
            result, found = diagnose_seed(subject, result, chosen, None if number else directory)
            lines += [line if len(tests) == 1 else f"seed {result.seed}: {line}" for line in found]
        results.append(result)
    evaluation = Evaluation(
        checkpoint=str(checkpoint.path),
        iteration=checkpoint.header["iteration"],
        data_set=dataset.name,
        test_examples=len(dataset.test_images),
        trained_on=str(checkpoint.header.get("data_set")),
        inference_steps=inference.n_steps,
        seeds=results,
    )
    save_evaluation(directory, evaluation, tests, dataset)
    print("\n".join([evaluation.table(), *lines]))
    pictures = "confusion.png, samples.png" + (" and diagnostics" if chosen else "")
    print(f"metrics.json, {pictures} are in {os.path.relpath(directory)}")
    for line in (warning, dataset.fallback):
        if line:
            print(f"WARNING: {line}")


def test_feedforward(models: "Model", dataset: "Dataset") -> "list[NetworkTest]":
    """Test every seed's model by feedforward passes."""
    import jax.numpy as jnp

    from bpc_cli.evaluation.feedforward import evaluate_ensemble
    from bpc_cli.evaluation.metrics import class_means

    means = class_means(dataset.test_images, dataset.test_labels, dataset.n_classes)
    return evaluate_ensemble(models, jnp.asarray(dataset.test_images), dataset.test_labels, means)


def describe_seed(subject: diagnostics.Subject, seed: int, test: "NetworkTest") -> "SeedResult":
    """Measure one seed's feedforward test, and test it by inference where it infers."""
    from bpc_cli.evaluation.by_inference import evaluate_by_inference
    from bpc_cli.evaluation.results import describe_test

    dataset = subject.dataset
    result = describe_test(test, seed, dataset.class_names)
    if subject.inference.n_steps == 0:
        return result
    by_inference = evaluate_by_inference(
        *subject[:3], dataset.test_images, dataset.test_labels, test.class_means
    )
    return dataclasses.replace(result, by_inference=by_inference)


def diagnose_seed(
    subject: diagnostics.Subject, result: "SeedResult", chosen: list[str], directory: Path | None
) -> "tuple[SeedResult, list[str]]":
    """Diagnose one seed's model; return its results with the numbers, and lines.

    Figures go to a directory, if one is given: the first seed's show what there is to see.
    """
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
    numbers, lines = diagnostics.diagnose(subject, chosen, directory)
    return dataclasses.replace(result, diagnostics=numbers), lines


def save_evaluation(
    directory: Path, evaluation: "Evaluation", tests: "list[NetworkTest]", dataset: "Dataset"
) -> None:
    """Leave an evaluation's metrics and its two figures in a directory."""
    from bpc_cli.plots import save_confusion_matrix, save_sample_grid

    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / _METRICS, evaluation.to_json())
    title = f"{dataset.name}, iteration {evaluation.iteration}"
    save_confusion_matrix(
        directory / "confusion.png", evaluation.confusion(), dataset.class_names, title
    )
    seeds = [result.seed for result in evaluation.seeds]
    headings = [f"seed {seed}" for seed in seeds] if len(seeds) > 1 else ["generated"]
    save_sample_grid(
        directory / "samples.png",
        [(heading, test.generated) for heading, test in zip(headings, tests, strict=True)],
        tests[0].class_means,
        dataset.image_shape,
        dataset.class_names,
        title,
    )


def choose_diagnostics(asked: list[str], *, infers: bool) -> list[str]:
    """List the diagnostics that are asked for; `all` leaves out what cannot be made.

    Raises:
        UserError: if one does not exist, or is asked for by name and needs inference where none is
            made.
    """
    known = diagnostics.names()
    for name in asked:
        if name not in (*known, "all"):
            raise UserError(unknown_choice("diagnostics", name, (*known, "all")))
    chosen = [name for name in known if {name, "all"} & set(asked)]
    if infers:
        return chosen
    needing = [name for name in chosen if diagnostics.needs_inference(name)]
    if needing and "all" not in asked:
        raise UserError(
            f"diagnostics=[{','.join(needing)}] are of inference, and this run makes none: choose "
            "others, or inference.n_steps"
        )
    return [name for name in chosen if name not in needing]


def load_test_set(
    config: EvalConfig, trained: "TrainConfig", checkpoint: "Checkpoint"
) -> "Dataset":
    """Load the data set to test on: the one that is asked for, or the one trained on.

    Raises:
        UserError: if it cannot be had, or its images or classes are not those trained on.
    """
    name = config.data.name
    if name is None:
        name = str(checkpoint.header.get("data_set"))
        check_data_name(name, f"{checkpoint.path}: data_set")
    dataset = find_dataset(name, config, trained)
    fits = list(dataset.image_shape) == checkpoint.header.get("image_shape") and len(
        dataset.class_names
    ) == len(checkpoint.header["class_names"])
    if not fits:
        raise UserError(
            f"{checkpoint.path} was trained on {checkpoint.header.get('data_set')}: the images or "
            f"classes of {dataset.name} do not fit it"
        )
    return dataset


def find_dataset(name: str, config: EvalConfig, trained: "TrainConfig") -> "Dataset":
    """Find a data set in the folders that are asked for, else in the run's, else in the usual ones.

    The run may be a stranger's. So from its data directory a packed copy alone is read, nothing is
    written there, and of its archives those alone are taken whose checksums are known.

    Raises:
        UserError: if it cannot be had.
    """
    from bpc_cli.data.archives import CHECKSUMS, holds_archives
    from bpc_cli.data.datasets import load_dataset, load_packed

    asked = config.data
    if asked.dir or asked.archive_dir or name in ("digits", "auto"):
        return load_dataset(name, data_dir=asked.dir, archive_dir=asked.archive_dir)
    for folder in (trained.data.dir, None):
        with contextlib.suppress(UserError, OSError):  # another user's folder, or no name of one
            if (packed := load_packed(name, data_dir=folder)) is not None:
                return packed
    archives = trained.data.archive_dir
    if not (archives and name in CHECKSUMS and holds_archives(archives)):
        archives = None
    try:
        return load_dataset(name, archive_dir=archives)
    except UserError as error:
        if trained.data.dir is None:
            raise
        raise UserError(f"{error}; the run's data.dir={trained.data.dir} has it no more") from error


if __name__ == "__main__":
    from bpc_cli.console import bpc_eval

    bpc_eval()
