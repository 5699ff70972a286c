"""bpc-eval: checkpoint → models → metrics on the test set."""

import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bpc_cli import diagnostics
from bpc_cli.cli.command_line import run_command
from bpc_cli.cli.commands import Command
from bpc_cli.cli.jobs import Job, is_same_job, one_by_one, save_composed_config
from bpc_cli.errors import UserError
from bpc_cli.files import expanded, write_json
from bpc_cli.options.check import check_saved_config
from bpc_cli.options.evaluation_schema import EvalConfig
from bpc_cli.reporting.finding import EVALUATIONS
from bpc_cli.runs.directory import EVALUATION, SUMMARY

# JAX is imported inside functions, so that completing or rejecting a command line takes no time.
if TYPE_CHECKING:
    from bpc_cli.cli.evaluation_plan import EvaluationPlan
    from bpc_cli.core.models import Model
    from bpc_cli.data.datasets import Dataset
    from bpc_cli.evaluation.convergence import Convergence
    from bpc_cli.evaluation.network_tests import NetworkTest
    from bpc_cli.evaluation.results import Evaluation, SeedResult
    from bpc_cli.options.schema import TrainConfig


def main() -> None:
    """Run the `bpc-eval` command."""
    run_command(
        Command(
            "bpc-eval",
            "eval",
            EvalConfig,
            one_by_one(evaluate),
            about="bpc-eval RUN [NAME=VALUE ...]: evaluate a trained network on its data set's "
            "test split.\nPrints a table; writes metrics.json, confusion.png and samples.png under "
            "outputs/eval/.",
            examples=(
                ("bpc-eval outputs/mine", "accuracy and generation error of a run's last state"),
                ("bpc-eval outputs/mine which=best", "the same of its best checkpoint"),
                ("bpc-eval outputs/sweep", "the same of every run of a sweep, for bpc-report"),
                (
                    "bpc-eval outputs/mine diagnostics=[all]",
                    "what its inference does, with figures",
                ),
            ),
            positional="checkpoint",
        )
    )


def evaluate(job: Job) -> None:
    """Evaluate a checkpoint as a job says: print a table and leave metrics and figures.

    Raises:
        UserError: if the checkpoint cannot be used, or the data set does not fit it.
    """
    from bpc_cli.cli.evaluation_plan import plan_evaluation
    from bpc_cli.cli.restore import restore_models
    from bpc_cli.cli.test_set import load_test_set
    from bpc_cli.evaluation.results import Evaluation
    from bpc_cli.runs.checkpoints.checkpoint import open_checkpoint
    from bpc_cli.runs.device import configure_jax

    config, directory = job.config, job.directory
    if (directory / EVALUATION).exists():
        if directory.parent.name == EVALUATIONS and is_same_job(job):
            print(f"evaluated already: {os.path.relpath(directory)}")
            return
        raise UserError(f"{directory} already holds an evaluation: choose another hydra.run.dir")
    configure_jax(**dataclasses.asdict(config.compute))
    checkpoint, warning = open_checkpoint(expanded(config.checkpoint), config.which)
    if directory.parent.name == EVALUATIONS:
        reject_unfinished(expanded(config.checkpoint))
    trained = check_saved_config(checkpoint.header["config"], checkpoint.path)
    models = restore_models(checkpoint, trained)
    plan = plan_evaluation(trained, config)
    dataset = load_test_set(config, trained, checkpoint)
    print(plan.describe(dataset), flush=True)
    feedforward = test_feedforward(models, dataset)
    results, lines = [], []
    subjects = subjects_of(models, trained, config, plan, dataset)
    for number, (subject, test) in enumerate(zip(subjects, feedforward, strict=True)):
        result = describe_seed(subject, trained.seed + number, test, plan.lowest_energy)
        if plan.diagnostics:
            result, found = diagnose_seed(subject, result, plan, None if number else directory)
            several = len(feedforward) > 1
            lines += [f"seed {result.seed}: {line}" if several else line for line in found]
        results.append(result)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / SUMMARY).unlink(missing_ok=True)  # of a time when it failed
    save_composed_config(job)
    evaluation = Evaluation(
        checkpoint=str(checkpoint.path),
        run=run_of(checkpoint.path, directory),
        iteration=checkpoint.header["iteration"],
        data_set=dataset.name,
        test_examples=len(dataset.test_images),
        trained_on=str(checkpoint.header.get("data_set")),
        inference_steps=plan.inference.n_steps,
        seeds=results,
    )
    save_evaluation(directory, evaluation, feedforward, dataset, plan.figure_formats)
    in_sweep = directory.parent.name == EVALUATIONS
    print("\n".join([evaluation.in_a_line() if in_sweep else evaluation.table(), *lines]))
    left = ["metrics.json", "confusion.png", "samples.png"]
    if feedforward[0].predicted is None:
        left.remove("confusion.png")
    files = ", ".join(left) + (" and diagnostics" if plan.diagnostics else "")
    print(f"{files} are in {os.path.relpath(directory)}")
    for line in (warning, dataset.fallback):
        if line:
            print(f"WARNING: {line}")


def reject_unfinished(run: Path) -> None:
    """Reject a run that may still train, so that a sweep's evaluations are of trained networks.

    Raises:
        UserError: if it has not finished.
    """
    from bpc_cli.runs.directory import is_finished

    if not is_finished(run):
        raise UserError(f"{run} has not finished: resume it, and give the same command again")


def run_of(checkpoint: Path, directory: Path) -> str | None:
    """Say where the run of a checkpoint is, seen from a directory; None if it is in none."""
    if checkpoint.parent.name != "checkpoints":
        return None
    return os.path.relpath(checkpoint.parent.parent, directory)


def subjects_of(
    models: "Model",
    trained: "TrainConfig",
    config: EvalConfig,
    plan: "EvaluationPlan",
    dataset: "Dataset",
) -> "Iterator[diagnostics.Subject]":
    """Make of each seed's model what is tested by inference and diagnosed."""
    import jax

    from bpc_cli.core.ensembles import take

    on_host = jax.device_get(models)
    for number in range(trained.n_seeds):
        yield diagnostics.Subject(
            take(on_host, number),
            plan.inference,
            jax.random.PRNGKey(trained.seed + number),
            dataset,
            **dataclasses.asdict(config.diagnosis),
            sampling=plan.sampling,
        )


def test_feedforward(models: "Model", dataset: "Dataset") -> "list[NetworkTest]":
    """Test every seed's model by feedforward passes."""
    import jax.numpy as jnp

    from bpc_cli.evaluation.feedforward import evaluate_ensemble
    from bpc_cli.evaluation.metrics import class_means
    from bpc_cli.evaluation.network_tests import first_examples

    images, labels = dataset.test_images, dataset.test_labels
    means = class_means(images, labels, dataset.n_classes)
    examples = first_examples(images, labels, dataset.n_classes)
    return evaluate_ensemble(models, jnp.asarray(images), labels, means, examples)


def describe_seed(
    subject: diagnostics.Subject, seed: int, test: "NetworkTest", lowest_energy: bool
) -> "SeedResult":
    """Measure one seed's feedforward test, and test it by inference where it infers."""
    from bpc_cli.evaluation.by_inference import evaluate_by_inference
    from bpc_cli.evaluation.representation import evaluate_representation
    from bpc_cli.evaluation.results import InferenceResult, describe_test

    dataset, model = subject.dataset, subject.model
    result = describe_test(test, seed, dataset.class_names)
    values, relaxed = {}, {}
    if model.n_latent:
        values, relaxed = evaluate_representation(*subject[:3], dataset)
    by_inference = None
    if subject.inference.n_steps:
        by_inference = InferenceResult({}, {})
        if model.n_classes:
            by_inference = evaluate_by_inference(
                *subject[:3], dataset.test_images, test, lowest_energy
            )
        by_inference = dataclasses.replace(by_inference, values=relaxed | by_inference.values)
    return dataclasses.replace(result, values=result.values | values, by_inference=by_inference)


def diagnose_seed(
    subject: diagnostics.Subject,
    result: "SeedResult",
    plan: "EvaluationPlan",
    directory: Path | None,
) -> "tuple[SeedResult, list[str]]":
    """Diagnose one seed's model; return its results with the numbers, and lines.

    Figures go to a directory, if one is given: the first seed's show what there is to see.
    """
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
    subject = subject._replace(inference=plan.followed)
    steps, about = {}, []
    if plan.to_convergence:
        found = diagnostics.find_steps(subject, plan.diagnostics)
        steps = {name: each.n_steps for name, each in found.items()}
        about = describe_steps(found)
    numbers, lines = diagnostics.diagnose(
        subject, plan.diagnostics, directory, steps, plan.figure_formats
    )
    values = result.values | diagnostics.metrics_of(numbers)
    result = dataclasses.replace(result, values=values, diagnostics=numbers, diagnosis_steps=steps)
    return result, about + lines


def describe_steps(found: "Mapping[str, Convergence]") -> list[str]:
    """Say how many inference steps diagnostics took, and where that was not enough."""
    if not found:
        return []
    counts = ", ".join(f"{name} {each.n_steps}" for name, each in found.items())
    lines = [f"inference steps until the energy settles: {counts}"]
    if still := [name for name, each in found.items() if not each.is_reached]:
        lines.append(
            f"after these, the energy still changes in {', '.join(still)}: more steps (inference."
            "n_steps=2000) or another rate (optim.activity_lr) reach further"
        )
    return lines


def save_evaluation(
    directory: Path,
    evaluation: "Evaluation",
    tests: "list[NetworkTest]",
    dataset: "Dataset",
    formats: list[str],
) -> None:
    """Leave an evaluation's metrics and its two figures in a directory."""
    from bpc_cli.evaluation.network_tests import rows_of_tests
    from bpc_cli.plots.confusion import save_confusion_matrix
    from bpc_cli.plots.sample_grids import save_sample_grid

    title = f"{dataset.name}, iteration {evaluation.iteration}"
    seeds = [result.seed for result in evaluation.seeds]
    counted = f", counts of {len(seeds)} seeds" if len(seeds) > 1 else f", seed={seeds[0]}"
    if tests[0].predicted is not None:
        save_confusion_matrix(
            directory / "confusion.png",
            evaluation.confusion(),
            dataset.class_names,
            title + counted,
            formats,
        )
    save_sample_grid(
        directory / "samples.png",
        *rows_of_tests(tests, seeds),
        dataset.image_shape,
        dataset.class_names,
        title,
        formats,
    )
    write_json(directory / EVALUATION, evaluation.to_json())  # last: it is done where this is


if __name__ == "__main__":
    from bpc_cli.console import bpc_eval

    bpc_eval()
