"""Against the figures of an independent implementation (see reference/README.md)."""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from idx import read_archives
from small_models import infer_each, inference_of, learning_of, sgd, small_model

from bpc_cli.core.architectures import Mlp
from bpc_cli.core.clamping import Clamping
from bpc_cli.core.energy import EnergyWeights, energy, energy_terms
from bpc_cli.core.learning import make_state
from bpc_cli.core.models import make_model, predict_classes
from bpc_cli.core.optimisers import make_optimiser
from bpc_cli.core.training import Chunk, Examples, Training, train_chunk
from bpc_cli.data.pixels import PixelScale
from bpc_cli.evaluation.metrics import accuracy

REFERENCE = Path(__file__).parent / "reference"
SMALL = sorted(path.name for path in REFERENCE.glob("depth*.npz"))


@pytest.fixture(params=SMALL)
def case(request, float64):
    """A small model with the reference's weights, and the reference's figures."""
    figures = dict(np.load(REFERENCE / request.param))
    depth = len(figures["sizes"]) - 1
    model = small_model(0, figures["sizes"], str(figures["act"]))
    top_down = [jnp.asarray(figures[f"W{i}"]) for i in range(depth)]
    # The reference numbers the amortiser's weights from the image, we from the label.
    label_first = [jnp.asarray(figures[f"V{i}"]) for i in reversed(range(depth))]
    model = eqx.tree_at(
        lambda m: [layer.weight for layer in (*m.generator, *m.amortiser)],
        model,
        top_down + label_first,
    )
    return model, figures


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-12)


def weights_of(figures):
    return EnergyWeights(float(figures["alpha_f"]), float(figures["alpha_b"]))


def states_of(model, figures, when):
    hidden = [jnp.asarray(figures[f"z{i}_{when}"]) for i in range(model.depth - 1)]
    return [jnp.asarray(figures["label"]), *hidden, jnp.asarray(figures["image"])]


def mean_energy(model, states, figures):
    return jax.vmap(lambda each: energy(model, each, weights_of(figures)))(states).mean()


def test_there_are_reference_files():
    assert len(SMALL) == 4


def test_feedforward_passes(case):
    model, figures = case
    generated = jax.vmap(lambda label: model.feed_down(label)[-1])(figures["label"])
    predicted = jax.vmap(lambda image: model.feed_up(image)[0])(figures["image"])
    close(generated, figures["gen_image"])
    close(predicted, figures["amort_label"])


def test_amortised_activities(case):
    model, figures = case
    label, *activities = jax.vmap(model.feed_up)(jnp.asarray(figures["image"]))
    close(label, figures["amort_label"])
    for i, activity in enumerate(activities):
        close(activity, figures[f"z{i}_init"])


def test_energy_terms(case):
    model, figures = case
    terms = jax.vmap(lambda each: energy_terms(model, each, weights_of(figures)))(
        states_of(model, figures, "init")
    )
    forward, backward = (direction.mean(axis=0) for direction in terms)
    ends = [forward[-1], backward[0]]
    hidden = [term for pair in zip(forward[:-1], backward[1:], strict=True) for term in pair]
    close(jnp.stack(ends + hidden), figures["energy_per_term"])


def test_relaxation_and_its_gradients(case):
    model, figures = case
    label, *activities, image = states_of(model, figures, "init")
    energy_of = jax.jit(lambda z: mean_energy(model, [label, *z, image], figures))
    gradients = jax.jit(jax.grad(energy_of))(activities)
    for i, gradient in enumerate(gradients):
        close(gradient, figures[f"z{i}_grad"])
    optimiser = sgd(float(figures["lr"]), batch=len(image))
    inference = inference_of(weights_of(figures), optimiser, int(figures["T"]))
    inferred = infer_each(model, Clamping(label, image), inference)
    for i, activity in enumerate(inferred.states.activities):
        close(activity, figures[f"z{i}_final"])
    close(inferred.relaxation.energies.mean(axis=0), figures["energy_trace"])


def test_parameter_gradients(case):
    model, figures = case
    states = states_of(model, figures, "final")
    energy_of = eqx.filter_grad(lambda model: mean_energy(model, states, figures))
    gradients = eqx.filter_jit(energy_of)(model)
    for i in range(model.depth):
        close(gradients.generator[i].weight, figures[f"grad_W{i}"])
        close(gradients.amortiser[model.depth - 1 - i].weight, figures[f"grad_V{i}"])


def example_state():
    model = make_model(Mlp(), jax.random.PRNGKey(0), 10, (28, 28, 1), PixelScale(0.1307, 0.3081))
    return make_state(model, example_training(1.0).learning)


def example_training(forward_energy_weight):
    alphas = (jnp.asarray(forward_energy_weight), jnp.asarray(1.0))
    return Training(
        inference_of(alphas, sgd(0.5, batch=64), 1),
        learning_of(alphas, make_optimiser("adam", 1e-3)),
        (),
        jax.random.PRNGKey(0),
    )


def test_seed_0_starts_from_the_published_example():
    figures = np.load(REFERENCE / "mnist_seed0_300steps.npz")
    state = example_state()
    generator_corner = state.model.generator[0].weight[:2, :5]
    amortiser_corner = state.model.amortiser[-1].weight[:2, :5]
    np.testing.assert_array_equal(generator_corner, figures["init_first_weights"])
    np.testing.assert_array_equal(amortiser_corner, figures["init_first_amort"])


@pytest.mark.parametrize(("weight", "suffix"), [(1.0, "af1"), (1e-3, "af1e-3")])
def test_the_published_example_on_mnist(weight, suffix, mnist_archives):
    figures = np.load(REFERENCE / "mnist_seed0_300steps.npz")
    data = read_archives(mnist_archives)
    images, labels = jnp.asarray(data["train_images"]), jnp.asarray(data["train_labels"])
    training, state = example_training(weight), example_state()
    gen_loss, amort_loss, accuracies = [], [], []
    for indices in np.split(figures["batch_indices"].astype(np.int32), 6):
        state, metrics, end = train_chunk(
            Chunk(Examples(images, labels), indices, np.int32(len(indices)), training), state
        )
        assert end.weights_are_finite
        gen_loss.append(metrics.gen_loss)
        amort_loss.append(metrics.amort_loss)
        predicted = predict_classes(state.model, jnp.asarray(data["test_images"]))
        accuracies.append(accuracy(np.asarray(predicted), data["test_labels"]))
    gen, amort = np.concatenate(gen_loss), np.concatenate(amort_loss)
    np.testing.assert_allclose(gen[:20], figures[f"gen_loss_{suffix}"][:20], rtol=1e-4)
    np.testing.assert_allclose(amort[:20], figures[f"amort_loss_{suffix}"][:20], rtol=5e-3)
    np.testing.assert_allclose(accuracies, figures[f"test_accuracy_{suffix}"], atol=0.5)
