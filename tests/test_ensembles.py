"""Ensembles: several models in one program do what each does alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import inference_of, learning_of, sgd, small_model

from bpc_cli.core.ensembles import join, stack, take
from bpc_cli.core.learning import make_state
from bpc_cli.core.models import generate_classes, predict_classes
from bpc_cli.core.optimisers import make_optimiser
from bpc_cli.core.training import Chunk, Examples, Training, train_chunk, train_ensemble
from bpc_cli.data.pixels import PixelScale
from bpc_cli.evaluation.feedforward import evaluate_ensemble
from bpc_cli.evaluation.metrics import class_means

N_STEPS = 6


def setting(seed, alpha_f, param_lr, depth):
    alphas = (jnp.asarray(alpha_f), jnp.asarray(1.0))
    sizes = (4, *[5] * (depth - 1), 9)
    model = small_model(seed, sizes, "tanh", PixelScale(0.1, 0.3), use_bias=True)
    training = Training(
        inference_of(alphas, sgd(0.5, batch=4), depth),
        learning_of(alphas, make_optimiser("adam", param_lr)),
        (),
        jax.random.PRNGKey(seed),
    )
    return training, make_state(model, training.learning)


def examples():
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (20, 9), np.uint8))
    return Examples(images, jnp.asarray(rng.integers(0, 4, 20, np.uint8)))


def batches_of(seed):
    return np.random.default_rng(seed).integers(0, 20, (N_STEPS, 4), np.int32)


def labels_known_to(seed):
    return jnp.asarray(np.random.default_rng(seed).random(20) < 0.5)


NUMBERS = [(0, 1.0, 1e-3), (1, 1e-3, 1e-2), (7, 0.0, 1e-4)]


@pytest.mark.parametrize(
    ("depth", "masked"), [(1, False), pytest.param(2, True, marks=pytest.mark.slow), (4, False)]
)
def test_each_member_is_a_run_of_its_own(depth, masked, float64):
    settings = [setting(*numbers, depth) for numbers in NUMBERS]
    indices = np.stack([batches_of(seed) for seed, *_ in NUMBERS])
    known = [labels_known_to(seed) if masked else None for seed, *_ in NUMBERS]
    data, n_steps = examples(), np.int32(N_STEPS)
    trainings, states = (stack(trees) for trees in zip(*settings, strict=True))
    together = data._replace(label_known=stack(known) if masked else None)
    states, metrics, end = train_ensemble(Chunk(together, indices, n_steps, trainings), states)
    assert end.weights_are_finite.tolist() == [True] * 3
    for k, (training, state) in enumerate(settings):
        own = data._replace(label_known=known[k])
        alone, own_metrics, _ = train_chunk(Chunk(own, indices[k], n_steps, training), state)
        for expected, trees in ((alone, states), (own_metrics, metrics)):
            ours = take(jax.device_get(trees), k)
            for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_a_single_member_is_the_plain_program_to_the_bit():
    training, state = setting(0, 1.0, 1e-3, 3)
    states, trainings = stack([state]), stack([training])
    data, n_steps = examples(), np.int32(N_STEPS)
    alone, _, _ = train_chunk(Chunk(data, batches_of(0), n_steps, training), state)
    states, _, _ = train_ensemble(Chunk(data, batches_of(0)[None], n_steps, trainings), states)
    ours = take(jax.device_get(states), 0)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(alone), strict=True):
        assert np.array_equal(a, b)


def test_an_ensemble_is_tested_like_models_alone():
    data = examples()
    labels = np.asarray(data.labels)
    models = [setting(*numbers, 3)[1].model for numbers in NUMBERS]
    means = class_means(np.asarray(data.images), labels, 4)
    for model, test in zip(
        models, evaluate_ensemble(stack(models), data.images, labels, means), strict=True
    ):
        np.testing.assert_array_equal(test.predicted, predict_classes(model, data.images))
        np.testing.assert_allclose(test.generated, generate_classes(model), rtol=1e-5, atol=1e-6)
        assert (test.labels is labels, test.class_means is means) == (True, True)


def test_what_is_stacked_or_joined_can_be_taken_out_again():
    states = [setting(seed, 1.0, 1e-3, 2)[1] for seed in range(3)]
    joined = join([stack(states[:2]), stack(states[2:])])
    for k, state in enumerate(states):
        for a, b in zip(jax.tree.leaves(take(joined, k)), jax.tree.leaves(state), strict=True):
            assert np.array_equal(a, b)
    pair = take(joined, slice(1, 3))
    assert np.array_equal(
        take(pair, 1).model.generator[0].weight, states[2].model.generator[0].weight
    )
