"""bpc-eval: checkpoint → networks → figures of merit on the test set."""

import dataclasses
import os
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from bpc_cli.atomic import write_json
from bpc_cli.checking import check_saved_config
from bpc_cli.command_line import run_command
from bpc_cli.config import EvalConfig, TrainConfig
from bpc_cli.errors import UserError
from bpc_cli.jobs import Job, one_by_one

# JAX is imported inside functions, so that completing or refusing a command line takes no time.
if TYPE_CHECKING:
    from bpc_cli.checkpoint import Checkpoint
    from bpc_cli.data import Dataset
    from bpc_cli.metrics import NetworkTest
    from bpc_cli.networks import Amortiser, Generator

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
    import jax.numpy as jnp

    from bpc_cli.checkpoint import open_checkpoint
    from bpc_cli.compilation import configure_jax
    from bpc_cli.images import pixel_scale
    from bpc_cli.metrics import class_means, evaluate_replicas
    from bpc_cli.plots import save_confusion_matrix, save_sample_grid

    config, directory = job.config, job.directory
    if (directory / _METRICS).exists():
        raise UserError(f"{directory} already holds an evaluation: choose another hydra.run.dir")
    configure_jax(**dataclasses.asdict(config.compute))
    checkpoint, warning = open_checkpoint(Path(config.checkpoint).expanduser(), config.which)
    trained = check_saved_config(checkpoint.header["config"], checkpoint.path)
    generators, amortisers = restore_networks(checkpoint, trained)
    dataset = load_test_set(config, checkpoint)
    tests = evaluate_replicas(
        generators,
        amortisers,
        jnp.asarray(dataset.test_images),
        dataset.test_labels,
        class_means(dataset.test_images, dataset.test_labels, dataset.n_classes),
        pixel_scale(trained.data.mean, trained.data.std),
    )
    seeds = [trained.seed + k for k in range(trained.n_seeds)]
    by_seed = [describe_test(test, seed, dataset) for test, seed in zip(tests, seeds, strict=True)]
    metrics = {
        "checkpoint": str(checkpoint.path),
        "iteration": checkpoint.header["iteration"],
        "data_set": dataset.name,
        "test_examples": len(dataset.test_images),
        "trained_on": checkpoint.header["data_set"],
        **sum_up(by_seed),
    }
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
    print(_table(metrics))
    print(f"metrics.json, confusion.png and samples.png are in {os.path.relpath(directory)}")
    for line in (warning, dataset.fallback):
        if line:
            print(f"WARNING: {line}")


def describe_test(test: "NetworkTest", seed: int, dataset: "Dataset") -> dict[str, Any]:
    """Put one seed's figures of merit under their names."""
    from bpc_cli.metrics import confusion_matrix, per_class_accuracy

    confusion = confusion_matrix(test.predicted, dataset.test_labels, dataset.n_classes)
    accuracies = per_class_accuracy(confusion)
    return {
        "seed": seed,
        "test_accuracy": test.accuracy,
        "per_class_accuracy": dict(zip(dataset.class_names, accuracies, strict=True)),
        "generation_error": test.generation_error,
        "confusion": confusion.tolist(),
    }


def sum_up(by_seed: list[dict[str, Any]]) -> dict[str, Any]:
    """Make one network's figures of several seeds': means, and counts added up."""
    from bpc_cli.seeds import spread

    if len(by_seed) == 1:
        return by_seed[0]
    accuracies = {
        name: [figures["per_class_accuracy"][name] for figures in by_seed]
        for name in by_seed[0]["per_class_accuracy"]
    }
    spreads = {
        name: spread([figures[name] for figures in by_seed])
        for name in ("test_accuracy", "generation_error")
    }
    return {
        "test_accuracy": spreads["test_accuracy"].mean,
        "per_class_accuracy": {
            name: None if None in values else fmean(values) for name, values in accuracies.items()
        },
        "generation_error": spreads["generation_error"].mean,
        "confusion": np.sum([figures["confusion"] for figures in by_seed], axis=0).tolist(),
        "spread": {name: figure._asdict() for name, figure in spreads.items()},
        "seeds": by_seed,
    }


def restore_networks(
    checkpoint: "Checkpoint", trained: TrainConfig
) -> tuple["Generator", "Amortiser"]:
    """Rebuild a checkpoint's networks, each seed's, stacked along a leading axis.

    Raises:
        UserError: if its arrays do not fit its config.
    """
    import equinox as eqx
    import jax

    from bpc_cli.checkpoint import restore
    from bpc_cli.learning import TrainState
    from bpc_cli.networks import layer_sizes, make_networks
    from bpc_cli.replicas import stack, with_leading_axis

    model = trained.model
    try:
        label_size = len(checkpoint.header["class_names"])
        image_size = _image_size(checkpoint)
        # A depth that the file does not back would take for ever to build.
        if model.depth > len(checkpoint.header["arrays"]):
            raise ValueError("fewer arrays than layers")
        sizes = layer_sizes(label_size, model.width, model.depth, image_size)
        generator, amortiser = eqx.filter_eval_shape(
            make_networks, jax.random.PRNGKey(0), sizes, model.act_fn, use_bias=model.use_bias
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
    from bpc_cli.data import load_dataset

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


def _table(metrics: dict[str, Any]) -> str:
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
    for name, accuracy in metrics["per_class_accuracy"].items():
        rows.append((f"  class {name}", "no images" if accuracy is None else f"{accuracy:.2f} %"))
    error = f"{metrics['generation_error']:.4f}{_spread(metrics, 'generation_error', 4)}"
    rows.append(("generation error", f"{error} (RMSE, pixels in [0, 1])"))
    for figures in seeds:
        rows.append((f"  seed {figures['seed']}", f"{figures['generation_error']:.4f}"))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _spread(metrics: dict[str, Any], name: str, decimals: int) -> str:
    if "spread" not in metrics:
        return ""
    figure = metrics["spread"][name]
    low, high = (f"{figure[end]:.{decimals}f}" for end in ("low", "high"))
    return f" ± {figure['std']:.{decimals}f}, mean in [{low}, {high}] at 95 % ({figure['n']} seeds)"


if __name__ == "__main__":
    main()
