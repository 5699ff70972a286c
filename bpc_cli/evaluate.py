"""bpc-eval: checkpoint → networks → figures of merit on the test set."""

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bpc_cli.cli.command_line import run_command
from bpc_cli.cli.jobs import Job, one_by_one
from bpc_cli.errors import UserError
from bpc_cli.files import write_json
from bpc_cli.options.check import check_saved_config
from bpc_cli.options.evaluation_schema import DIAGNOSTICS, EvalConfig, EvalInferenceConfig
from bpc_cli.options.schema import TrainConfig, n_inference_steps

# JAX is imported inside functions, so that completing or refusing a command line takes no time.
if TYPE_CHECKING:
    from bpc_cli.core.models import Amortiser, Generator
    from bpc_cli.core.rules import Rules
    from bpc_cli.data.datasets import Dataset
    from bpc_cli.evaluation.classification import NetworkTest
    from bpc_cli.runs.checkpoint import Checkpoint

_METRICS = "metrics.json"


def main() -> None:
    """Run the `bpc-eval` command."""
    run_command(
        "bpc-eval",
        "eval",
        EvalConfig,
        one_by_one(evaluate),
        about="bpc-eval: evaluate a trained network on its data set's test split.\n"
        "Prints a table; writes metrics.json, confusion.png and samples.png under outputs/eval/.",
    )


def evaluate(job: Job) -> None:
    """Evaluate a checkpoint as a job says: print a table and leave figures.

    Raises:
        UserError: if the checkpoint cannot be used, or the data set does not fit it.
    """
    import jax
    import jax.numpy as jnp

    from bpc_cli.core.ensembles import take
    from bpc_cli.data.pixels import pixel_scale
    from bpc_cli.evaluation.classification import class_means, evaluate_replicas
    from bpc_cli.evaluation.results import describe_relaxation, describe_test, sum_up, table_of
    from bpc_cli.runs.checkpoint import open_checkpoint
    from bpc_cli.runs.compilation import configure_jax

    config, directory = job.config, job.directory
    if (directory / _METRICS).exists():
        raise UserError(f"{directory} already holds an evaluation: choose another hydra.run.dir")
    configure_jax(**dataclasses.asdict(config.compute))
    checkpoint, warning = open_checkpoint(Path(config.checkpoint).expanduser(), config.which)
    trained = check_saved_config(checkpoint.header["config"], checkpoint.path)
    networks = restore_networks(checkpoint, trained)
    dataset = load_test_set(config, checkpoint)
    tests = evaluate_replicas(
        *networks,
        jnp.asarray(dataset.test_images),
        dataset.test_labels,
        class_means(dataset.test_images, dataset.test_labels, dataset.n_classes),
        pixel_scale(trained.data.mean, trained.data.std),
    )
    seeds = [trained.seed + k for k in range(trained.n_seeds)]
    by_seed = [describe_test(test, seed, dataset) for test, seed in zip(tests, seeds, strict=True)]
    rules = build_test_rules(trained, config.inference)
    diagnostics = choose_diagnostics(config.diagnostics, infers=rules.n_inference_steps > 0)
    on_host = jax.device_get(networks)
    networks_of = [take(on_host, k) for k in range(len(seeds))]
    if rules.n_inference_steps:
        for each, figures in zip(networks_of, by_seed, strict=True):
            figures |= describe_relaxation(each, rules, trained, dataset)
    lines = []
    if diagnostics:
        lines = diagnose_seeds(diagnostics, job, trained, rules, dataset, networks_of, by_seed)
    metrics = {
        "checkpoint": str(checkpoint.path),
        "iteration": checkpoint.header["iteration"],
        "data_set": dataset.name,
        "test_examples": len(dataset.test_images),
        "trained_on": checkpoint.header["data_set"],
        "inference_steps": rules.n_inference_steps,
        **sum_up(by_seed),
    }
    save_evaluation(directory, metrics, seeds, tests, dataset)
    print("\n".join([table_of(metrics), *lines]))
    pictures = "confusion.png, samples.png" + (" and diagnostics" if diagnostics else "")
    print(f"metrics.json, {pictures} are in {os.path.relpath(directory)}")
    for line in (warning, dataset.fallback):
        if line:
            print(f"WARNING: {line}")


def diagnose_seeds(
    names: list[str],
    job: Job,
    trained: TrainConfig,
    rules: "Rules",
    dataset: "Dataset",
    networks_of: list[tuple["Generator", "Amortiser"]],
    by_seed: list[dict[str, Any]],
) -> list[str]:
    """Make diagnostics of every seed's networks, put the numbers into its figures; return lines.

    The first seed's pictures are drawn, which show what there is to see.
    """
    from bpc_cli.data.pixels import pixel_scale
    from bpc_cli.diagnostics.diagnose import Subject, diagnose

    job.directory.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, (networks, figures) in enumerate(zip(networks_of, by_seed, strict=True)):
        subject = Subject(
            networks,
            rules,
            dataset,
            pixel_scale(trained.data.mean, trained.data.std),
            trained.batch_size,
            **dataclasses.asdict(job.config.diagnosis),
        )
        figures["diagnostics"], said = diagnose(subject, names, None if number else job.directory)
        seed = "" if len(by_seed) == 1 else f"seed {figures['seed']}: "
        lines += [seed + line for line in said]
    return lines


def save_evaluation(
    directory: Path,
    metrics: dict[str, Any],
    seeds: list[int],
    tests: list["NetworkTest"],
    dataset: "Dataset",
) -> None:
    """Leave an evaluation's figures and its two pictures in a directory."""
    from bpc_cli.plots import save_confusion_matrix, save_sample_grid

    write_json(directory / _METRICS, metrics)
    title = f"{dataset.name}, iteration {metrics['iteration']}"
    save_confusion_matrix(
        directory / "confusion.png", np.array(metrics["confusion"]), dataset.class_names, title
    )
    headings = [f"seed {seed}" for seed in seeds] if len(seeds) > 1 else ["generated"]
    save_sample_grid(
        directory / "samples.png",
        [(heading, test.drawn) for heading, test in zip(headings, tests, strict=True)],
        tests[0].class_means,
        dataset.image_shape,
        dataset.class_names,
        title,
    )


def build_test_rules(trained: TrainConfig, inference: EvalInferenceConfig) -> "Rules":
    """Build the rules of tests by relaxation, which has no steps where the model infers nothing."""
    from bpc_cli.cli.build import build_rules

    n_steps = n_inference_steps(trained)
    if inference.n_steps is not None and trained.algorithm.name != "bp":
        n_steps = inference.n_steps
    optim = trained.optim
    if inference.activity_lr is not None:
        optim = dataclasses.replace(optim, activity_lr=inference.activity_lr)
    if inference.activity is not None:
        optim = dataclasses.replace(optim, activity=inference.activity, activity_args={})
    weights = {
        name: getattr(inference, name)
        for name in ("forward_energy_weight", "backward_energy_weight")
        if getattr(inference, name) is not None
    }
    tested = dataclasses.replace(trained, optim=optim, **weights)
    return build_rules(tested, trained.seed, n_steps, n_iters=1)


def choose_diagnostics(asked: list[str], *, infers: bool) -> list[str]:
    """Put the diagnostics that are asked for in order; `all` leaves out what cannot be made.

    Raises:
        UserError: if one is asked for by name that is of inference, and none is made.
    """
    names = [name for name in DIAGNOSTICS if {name, "all"} & set(asked)]
    needing = [name for name in names if name in ("inference", "steps", "hessian")]
    if infers or not needing:
        return names
    if "all" not in asked:
        raise UserError(
            f"diagnostics=[{','.join(needing)}] are of inference, and this run makes none: choose "
            "others, or inference.n_steps"
        )
    return [name for name in names if name not in needing]


def restore_networks(
    checkpoint: "Checkpoint", trained: TrainConfig
) -> tuple["Generator", "Amortiser"]:
    """Rebuild a checkpoint's networks, each seed's, stacked along a leading axis.

    Raises:
        UserError: if its arrays do not fit its config.
    """
    import equinox as eqx
    import jax

    from bpc_cli.core.ensembles import stack, with_leading_axis
    from bpc_cli.core.learning import TrainState
    from bpc_cli.core.models import layer_sizes, make_networks
    from bpc_cli.runs.checkpoint import restore

    model = trained.model
    try:
        label_size = len(checkpoint.header["class_names"])
        image_size = _image_size(checkpoint)
        # A depth that the file does not back would take for ever to build.
        if model.depth > len(checkpoint.header["arrays"]):
            raise ValueError("fewer arrays than layers")
        sizes = layer_sizes(label_size, model.width, model.depth, image_size)
        generator, amortiser = eqx.filter_eval_shape(
            make_networks,
            jax.random.PRNGKey(0),
            sizes,
            model.act_fn,
            use_bias=model.use_bias,
            parameterisation=model.parameterisation,
            generator_act_fn=model.generator_act_fn,
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{checkpoint.path} does not describe a network ({error})") from error
    networks = TrainState(generator, amortiser, None, None)
    if trained.n_seeds == 1:
        state = stack([restore(checkpoint, networks)])
    else:
        state = restore(checkpoint, with_leading_axis(networks, trained.n_seeds))
    return state.generator, state.amortiser


def load_test_set(config: EvalConfig, checkpoint: "Checkpoint") -> "Dataset":
    """Load the data set to test on: the one that is asked for, or the one trained on.

    Only the data set's name is taken from the checkpoint, and no path in it is followed.

    Raises:
        UserError: if it cannot be had, or its images or classes are not those trained on.
    """
    from bpc_cli.data.datasets import load_dataset

    if config.data is not None:
        dataset = load_dataset(
            config.data.name, data_dir=config.data.dir, archive_dir=config.data.archive_dir
        )
    else:
        name = str(checkpoint.header["data_set"])
        archives = os.environ.get("BPC_MNIST_ARCHIVES") if name == "mnist" else None
        dataset = load_dataset(name, archive_dir=archives)
    fits = list(dataset.image_shape) == checkpoint.header["image_shape"] and len(
        dataset.class_names
    ) == len(checkpoint.header["class_names"])
    if not fits:
        raise UserError(
            f"{checkpoint.path} was trained on {checkpoint.header['data_set']}: the images or "
            f"classes of {dataset.name} do not fit it"
        )
    return dataset


def _image_size(checkpoint: "Checkpoint") -> int:
    height, width, channels = checkpoint.header["image_shape"]
    return height * width * channels


if __name__ == "__main__":
    main()
