"""Training steps, compiled to be timed."""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import hydra
import jax
import jax.numpy as jnp
import numpy as np

from bpc_cli.cli.build import build_ensemble, build_plan
from bpc_cli.core.architectures import Mlp
from bpc_cli.core.clamping import Clamping, clamp_both
from bpc_cli.core.energy import EnergyWeights
from bpc_cli.core.ensembles import take
from bpc_cli.core.inference import Inference, infer_each
from bpc_cli.core.learning import Learning, make_state
from bpc_cli.core.models import Model, make_model
from bpc_cli.core.optimisers import make_optimiser, scaled
from bpc_cli.core.training import Chunk, Examples, Training, train_chunk
from bpc_cli.data.datasets import Dataset
from bpc_cli.data.examples import batch_indices
from bpc_cli.data.pixels import PixelScale
from bpc_cli.options.check import check_config
from bpc_cli.options.evaluation_schema import register_schemas
from bpc_cli.options.schema import TrainConfig

Run = Callable[[], object]
DEFAULT = {"width": 256, "depth": 2, "batch": 64, "n_inference_steps": 1}


def compile_steps(width: int, depth: int, batch: int, n_inference_steps: int) -> tuple[Run, int]:
    """Compile and run once a chunk of an MLP's training steps on MNIST-shaped noise.

    Returns:
        The chunk, and how many steps it has.
    """
    training = make_training(batch, n_inference_steps, jax.random.PRNGKey(0))
    n_steps = max(2, min(50, 20_000 // (batch * n_inference_steps)))
    scale = PixelScale(0.1307, 0.3081)
    model = make_model(Mlp(width, depth), jax.random.PRNGKey(0), 10, (28, 28, 1), scale)
    state = make_state(model, training.learning)
    noise = noise_dataset((28, 28, 1))
    indices = batch_indices(0, 1, n_steps, len(noise.train_images), batch)
    examples = Examples(noise.train_images, noise.train_labels)
    chunk = Chunk(*jax.device_put((examples, indices, np.int32(n_steps))), training)

    def run() -> None:
        nonlocal state
        state, *_ = jax.block_until_ready(train_chunk(chunk, state))

    run()
    return run, n_steps


def make_training(batch: int, n_inference_steps: int, key: jax.Array) -> Training:
    """Make the published example's way of training, with equal energy weights."""
    weights = EnergyWeights(jnp.ones(()), jnp.ones(()))  # arrays, so that they are not compiled in
    sgd = scaled(make_optimiser("sgd", 0.5), 1 / batch)
    inference = Inference(weights, sgd, n_inference_steps)
    return Training(inference, Learning(weights, make_optimiser("adam", 1e-3)), (), key)


def compile_epoch(config: TrainConfig, dataset: Dataset) -> Run:
    """Compile and run once the training steps of an epoch of a run's first seed."""
    n_examples = len(dataset.train_images)
    n_steps = n_examples // config.batch_size
    one = dataclasses.replace(config, n_seeds=1)
    ensemble = take(jax.device_get(build_ensemble(one, build_plan(one, dataset))), 0)
    indices = batch_indices(one.seed, 1, n_steps, n_examples, one.batch_size)
    examples = Examples(dataset.train_images, dataset.train_labels, ensemble.label_known)
    data = jax.device_put((examples, indices, np.int32(n_steps)))
    chunk = Chunk(*data, ensemble.training)

    def epoch() -> None:
        # The state is donated, so each call is given a copy.
        jax.block_until_ready(train_chunk(chunk, jax.tree.map(_copied, ensemble.states)))

    epoch()
    return epoch


def compile_inference(n_pixels: int, n_steps: int) -> Run:
    """Compile and run once inference of 256 images of so many pixels, with their labels clamped."""
    model = make_model(Mlp(256, 3), jax.random.PRNGKey(0), 10, (1, n_pixels, 1))
    images = jax.random.normal(jax.random.PRNGKey(1), (256, n_pixels))
    clampings = clamp_both(model, model.one_hot(jnp.arange(256) % 10), images)
    inference = make_training(256, n_steps, jax.random.PRNGKey(0)).inference

    @eqx.filter_jit
    def infer(model: Model, clampings: Clamping, inference: Inference) -> list[jax.Array]:
        return infer_each(model, clampings, inference, trace=False).states.activities

    def run() -> None:
        jax.block_until_ready(infer(model, clampings, inference))

    run()
    return run


def compose_experiment(name: str) -> TrainConfig:
    """Compose an experiment's config."""
    register_schemas()
    with hydra.initialize_config_module("bpc_cli.configs", version_base="1.3"):
        return check_config(hydra.compose("train", [f"experiment={name}"]), TrainConfig)


def noise_dataset(image_shape: tuple[int, int, int], n_images: int = 8192) -> Dataset:
    """Make a data set of ten classes whose images are noise."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n_images, math.prod(image_shape)), np.uint8)
    labels = rng.integers(0, 10, n_images, np.uint8)
    classes = tuple(map(str, range(10)))
    return Dataset("noise", images, labels, images, labels, image_shape, classes)


def best_of(run: Run, times: int = 2) -> float:
    """Time a function a few times and take the fastest, in seconds."""
    took = []
    for _ in range(times):
        began = time.perf_counter()
        run()
        took.append(time.perf_counter() - began)
    return min(took)


def _copied(leaf: Any) -> Any:
    return jnp.array(leaf) if isinstance(leaf, np.ndarray) else leaf
