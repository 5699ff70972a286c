"""Against the figures of an independent implementation (see reference/README.md)."""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from idx import read_archives

from bpc_cli.core.energy import energy, energy_terms
from bpc_cli.core.inference import amortise, relax
from bpc_cli.core.learning import make_state, train_chunk
from bpc_cli.core.models import make_networks
from bpc_cli.core.optimisers import make_optimiser
from bpc_cli.core.rules import make_rules
from bpc_cli.data.pixels import pixel_scale
from bpc_cli.evaluation.classification import accuracy, predict_classes

REFERENCE = Path(__file__).parent / "reference"
SMALL = sorted(path.name for path in REFERENCE.glob("depth*.npz"))


@pytest.fixture(params=SMALL)
def case(request, float64):
    """A small network with the reference's weights, and the reference's figures."""
    figures = dict(np.load(REFERENCE / request.param))
    depth = len(figures["sizes"]) - 1
    networks = make_networks(
        jax.random.PRNGKey(0), [int(size) for size in figures["sizes"]], str(figures["act"])
    )
    top_down = [jnp.asarray(figures[f"W{i}"]) for i in range(depth)]
    # The reference numbers the amortiser's weights from the image, we from the label.
    label_first = [jnp.asarray(figures[f"V{i}"]) for i in reversed(range(depth))]
    generator, amortiser = eqx.tree_at(
        lambda pair: [layer.weight for network in pair for layer in network.layers],
        networks,
        top_down + label_first,
    )
    return generator, amortiser, figures


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-12)


def energy_arguments(figures):
    return jnp.asarray(figures["label"]), jnp.asarray(figures["image"])


def test_there_are_reference_files():
    assert len(SMALL) == 4


def test_feedforward_passes(case):
    generator, amortiser, figures = case
    label, image = energy_arguments(figures)
    close(generator(label), figures["gen_image"])
    close(amortiser(image), figures["amort_label"])


def test_amortised_activities(case):
    _, amortiser, figures = case
    activities, label = amortise(amortiser, jnp.asarray(figures["image"]))
    close(label, figures["amort_label"])
    for i, activity in enumerate(activities):
        close(activity, figures[f"z{i}_init"])


def test_energy_terms(case):
    generator, amortiser, figures = case
    label, image = energy_arguments(figures)
    activities = [jnp.asarray(figures[f"z{i}_init"]) for i in range(generator.depth - 1)]
    weights = float(figures["alpha_f"]), float(figures["alpha_b"])
    forward, backward = energy_terms(generator, amortiser, label, activities, image, *weights)
    ends = [forward[-1], backward[0]]
    hidden = [term for pair in zip(forward[:-1], backward[1:], strict=True) for term in pair]
    close(jnp.stack(ends + hidden), figures["energy_per_term"])


def test_relaxation_and_its_gradients(case):
    generator, amortiser, figures = case
    label, image = energy_arguments(figures)
    activities = [jnp.asarray(figures[f"z{i}_init"]) for i in range(generator.depth - 1)]
    weights = float(figures["alpha_f"]), float(figures["alpha_b"])

    def energy_of(activities):
        return energy(generator, amortiser, label, activities, image, *weights)

    for i, gradient in enumerate(jax.grad(energy_of)(activities)):
        close(gradient, figures[f"z{i}_grad"])
    sgd = make_optimiser("sgd", float(figures["lr"]))
    relaxed, trace, *_ = relax(activities, energy_of, sgd, int(figures["T"]))
    for i, activity in enumerate(relaxed):
        close(activity, figures[f"z{i}_final"])
    close(jnp.append(trace, energy_of(relaxed)), figures["energy_trace"])


def test_parameter_gradients(case):
    generator, amortiser, figures = case
    depth = generator.depth
    label, image = energy_arguments(figures)
    relaxed = [jnp.asarray(figures[f"z{i}_final"]) for i in range(depth - 1)]
    weights = float(figures["alpha_f"]), float(figures["alpha_b"])

    def energy_of(networks):
        return energy(*networks, label, relaxed, image, *weights)

    for_generator, for_amortiser = eqx.filter_grad(energy_of)((generator, amortiser))
    for i in range(depth):
        close(for_generator.layers[i].weight, figures[f"grad_W{i}"])
        close(for_amortiser.layers[depth - 1 - i].weight, figures[f"grad_V{i}"])


def example_rules(forward_energy_weight):
    sgd, adam = make_optimiser("sgd", 0.5), make_optimiser("adam", 1e-3)
    return make_rules(forward_energy_weight, 1.0, sgd, adam, n_inference_steps=1)


def example_state():
    adam = make_optimiser("adam", 1e-3)
    return make_state(jax.random.PRNGKey(0), (10, 256, 784), "relu", adam)


def test_seed_0_starts_from_the_published_example():
    figures = np.load(REFERENCE / "mnist_seed0_300steps.npz")
    state = example_state()
    generator_corner = state.generator.layers[0].weight[:2, :5]
    amortiser_corner = state.amortiser.layers[-1].weight[:2, :5]
    np.testing.assert_array_equal(generator_corner, figures["init_first_weights"])
    np.testing.assert_array_equal(amortiser_corner, figures["init_first_amort"])


@pytest.mark.parametrize(("weight", "suffix"), [(1.0, "af1"), (1e-3, "af1e-3")])
def test_the_published_example_on_mnist(weight, suffix, mnist_archives):
    figures = np.load(REFERENCE / "mnist_seed0_300steps.npz")
    data = read_archives(mnist_archives)
    images, labels = jnp.asarray(data["train_images"]), jnp.asarray(data["train_labels"])
    scale, rules, state = pixel_scale(0.1307, 0.3081), example_rules(weight), example_state()
    gen_loss, amort_loss, accuracies = [], [], []
    for indices in np.split(figures["batch_indices"].astype(np.int32), 6):
        state, metrics, finite = train_chunk(
            (images, labels, indices, np.int32(len(indices)), scale, rules), state
        )
        assert finite
        gen_loss.append(metrics.gen_loss)
        amort_loss.append(metrics.amort_loss)
        predicted = predict_classes(state.amortiser, jnp.asarray(data["test_images"]), scale)
        accuracies.append(accuracy(np.asarray(predicted), data["test_labels"]))
    gen, amort = np.concatenate(gen_loss), np.concatenate(amort_loss)
    np.testing.assert_allclose(gen[:20], figures[f"gen_loss_{suffix}"][:20], rtol=1e-4)
    np.testing.assert_allclose(amort[:20], figures[f"amort_loss_{suffix}"][:20], rtol=5e-3)
    np.testing.assert_allclose(accuracies, figures[f"test_accuracy_{suffix}"], atol=0.5)
