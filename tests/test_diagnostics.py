"""Diagnostics, against NumPy written from the equations, and the command that makes them."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_hand import ByHand
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small_models import inference_of, sgd, small_model

from bpc_cli.data.pixels import PixelScale, denormalise
from bpc_cli.diagnostics import landscape as landscape_diagnostic
from bpc_cli.diagnostics.completion import complete, hidden_pixels
from bpc_cli.diagnostics.hessian import MOST_UNITS, curvature
from bpc_cli.diagnostics.inference import follow_inference
from bpc_cli.diagnostics.landscape import xor_landscapes
from bpc_cli.diagnostics.probe import activities_of, probe
from bpc_cli.diagnostics.steps import follow_classification, follow_generation
from bpc_cli.evaluation.convergence import (
    MOST_STEPS,
    TOLERANCE,
    find_convergence,
    follow_energies,
)
from bpc_cli.options.names import HIDDEN_PARTS

ALPHA_F, ALPHA_B, RATE, N_STEPS, CLASSES = 0.4, 1.3, 0.1, 5, 4
SCALE = PixelScale(0.2, 0.5)
INFERS = {"bpc": (ALPHA_F, ALPHA_B), "genpc": (ALPHA_F, 0)}


def case(algorithm="bpc", depth=3):
    model = small_model(3, [CLASSES, *[5] * (depth - 1), 9], "tanh", SCALE)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (11, 9), np.uint8))
    labels = jnp.asarray(rng.integers(0, CLASSES, 11))
    return model, images, labels, inference_of((ALPHA_F, ALPHA_B), sgd(RATE), N_STEPS, algorithm)


def predict(model, image):
    return np.asarray(jax.vmap(model.feed_up)(jnp.asarray(image))[0])


def generate(model, label):
    return np.asarray(jax.vmap(model.feed_down)(jnp.asarray(label))[-1])


def steps_by_hand(hand, first, alphas, **more):
    states = [first]
    for _ in range(N_STEPS):
        states.append(hand.relaxed(states[-1], *alphas, 1, RATE, **more))
    return states


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(HIDDEN_PARTS), st.floats(0.01, 0.99), st.integers(1, 9), st.integers(1, 9))
def test_the_share_of_pixels_is_hidden(part, share, height, width):
    hidden = hidden_pixels(part, share, (height, width, 3), 4).reshape(4, height, width, 3)
    assert (hidden == hidden[..., :1]).all()
    each = hidden[..., 0].sum(axis=(1, 2))
    whole = {
        "top": round(share * height) * width,
        "left": round(share * width) * height,
        "random": round(share * height * width),
        "square": round(math.sqrt(share) * height) * round(math.sqrt(share) * width),
    }
    assert (each == whole[part]).all()
    if part == "top":
        assert hidden[:, : round(share * height)].all()
    if part == "left":
        assert hidden[:, :, : round(share * width)].all()
    if part == "square":  # in the middle, but for what does not divide by two
        for axis in (1, 2):
            seen = np.flatnonzero(hidden[0, ..., 0].any(axis=2 - axis))
            left, right = seen[:1], hidden.shape[axis] - 1 - seen[-1:]
            assert (np.abs(left - right) <= 1).all()


def test_random_pixels_are_others_in_each_image_and_the_same_again():
    hidden = hidden_pixels("random", 0.5, (8, 8, 1), 2)
    assert (hidden[0] != hidden[1]).any()
    np.testing.assert_array_equal(hidden, hidden_pixels("random", 0.5, (8, 8, 1), 2))
    with pytest.raises(ValueError, match="unknown part 'bottom'; known: top, left, random, square"):
        hidden_pixels("bottom", 0.5, (8, 8, 1), 2)


@pytest.mark.parametrize("algorithm", INFERS)
def test_completion_relaxes_label_activities_and_hidden_pixels(algorithm, float64):
    model, images, _, inference = case(algorithm)
    hidden = hidden_pixels("left", 0.5, (3, 3, 1), len(images))
    image = np.where(hidden, 0.0, np.asarray(model.to_states(images)))
    label = predict(model, image)
    predicted = label.argmax(1)
    if algorithm == "genpc":
        label = np.full_like(label, 1 / CLASSES)
    hand = ByHand(model, label, image)
    first = hand.generated() if algorithm == "genpc" else hand.amortised()
    relaxed = hand.relaxed(
        *(first, *INFERS[algorithm], N_STEPS, RATE),
        free=range(4),
        frozen_pixels=~hidden[0],
    )
    made = complete(model, images, jnp.asarray(hidden), inference, block_size=4)
    np.testing.assert_array_equal(made.by_pass, predicted)
    np.testing.assert_array_equal(made.by_inference, relaxed[0].argmax(1))
    np.testing.assert_allclose(made.images, denormalise(jnp.asarray(relaxed[3]), SCALE))
    generated = np.where(hidden, generate(model, np.eye(CLASSES)[predicted]), image)
    np.testing.assert_allclose(made.generated, denormalise(jnp.asarray(generated), SCALE))


def test_what_is_hidden_is_never_read():
    model, images, _, inference = case()
    hidden = jnp.asarray(hidden_pixels("random", 0.5, (3, 3, 1), len(images)))
    made = complete(model, images, hidden, inference)
    other = complete(model, jnp.where(hidden, 255 - images, images), hidden, inference)
    for a, b in zip(made, other, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("algorithm", INFERS)
def test_inference_is_followed_step_by_step(algorithm, float64):
    model, images, labels, inference = case(algorithm)
    hand = ByHand(model, np.eye(CLASSES)[labels], np.asarray(model.to_states(images)))
    first = hand.generated() if algorithm == "genpc" else hand.amortised()
    alphas = INFERS[algorithm]
    states = steps_by_hand(hand, first, alphas)
    seen = follow_inference(model, images, labels, inference, block_size=4)

    def norm(these, those):
        return np.sqrt(sum(((a - b) ** 2).sum(1) for a, b in zip(these, those, strict=True)))

    nothing = [np.zeros_like(activity) for activity in first[1:-1]]
    for step, state in enumerate(states):
        forward, backward = hand.errors(state)
        for layer in range(3):
            np.testing.assert_allclose(
                seen.generator_terms[:, step, layer], (forward[layer] ** 2).sum(1) / 2
            )
            np.testing.assert_allclose(
                seen.amortiser_terms[:, step, layer], (backward[layer] ** 2).sum(1) / 2, atol=1e-15
            )
        hidden = state[1:-1]
        for name, other in (("from_start", first), ("from_end", states[-1])):
            expected = norm(hidden, other[1:-1]) / norm(other[1:-1], nothing)
            np.testing.assert_allclose(getattr(seen, name)[:, step], expected, atol=1e-12)
        moved = hand.relaxed(state, *alphas, 1, RATE)
        gradient = norm(hidden, moved[1:-1]) / RATE / np.sqrt(10)
        np.testing.assert_allclose(seen.gradient[:, step], gradient, rtol=1e-7)


def test_classification_and_generation_are_followed_step_by_step(float64):
    model, images, labels, inference = case()
    image = np.asarray(model.to_states(images))
    hand = ByHand(model, predict(model, image), image)
    states = steps_by_hand(hand, hand.amortised(), INFERS["bpc"], free=range(3))
    right = follow_classification(model, images, labels, inference)
    for step, state in enumerate(states):
        np.testing.assert_array_equal(right[:, step], state[0].argmax(1) == np.asarray(labels))
    label = np.eye(CLASSES)
    hand = ByHand(model, label, generate(model, label))
    states = steps_by_hand(hand, hand.generated(), INFERS["bpc"], free=(1, 2, 3))
    generated = follow_generation(model, inference)
    for step, state in enumerate(states):
        np.testing.assert_allclose(generated[step], denormalise(jnp.asarray(state[3]), SCALE))


def test_a_linear_networks_curvature_is_the_closed_forms(float64):
    """At depth 2: ∂²F/∂z² = α_f (I + W_1ᵀ W_1) + α_b (I + V_0ᵀ V_0)."""
    model = small_model(0, [3, 4, 6], "linear")
    inference = inference_of((ALPHA_F, ALPHA_B), sgd(RATE), 1)
    W, V = model.generator[1].weight, model.amortiser[0].weight
    hessian = ALPHA_F * (np.eye(4) + W.T @ W) + ALPHA_B * (np.eye(4) + V.T @ V)
    values = np.linalg.eigvalsh(hessian)
    measured = curvature(model, jnp.eye(3)[0], jnp.ones(6), inference)
    np.testing.assert_allclose(measured.largest, values[-1])
    np.testing.assert_allclose(measured.smallest, values[0])
    np.testing.assert_allclose(measured.condition, values[-1] / values[0])
    np.testing.assert_allclose(measured.best_rate, 2 / (values[-1] + values[0]))
    assert measured.n_negative == 0
    with pytest.raises(ValueError, match="there are no hidden units"):
        curvature(small_model(0, [3, 6], "linear"), jnp.eye(3)[0], jnp.ones(6), inference)


def test_the_ends_of_many_units_curvature_are_the_closed_forms(float64):
    """The Hessian is α_f + α_b on all but nine directions, which the two weights span."""
    model = small_model(0, [3, MOST_UNITS + 1, 6], "linear")
    inference = inference_of((ALPHA_F, ALPHA_B), sgd(RATE), 1)
    W, V = model.generator[1].weight, model.amortiser[0].weight
    spanning = np.vstack([ALPHA_F**0.5 * W, ALPHA_B**0.5 * V])
    measured = curvature(model, jnp.eye(3)[0], jnp.ones(6), inference)
    largest = ALPHA_F + ALPHA_B + np.linalg.eigvalsh(spanning @ spanning.T)[-1]
    np.testing.assert_allclose(measured.largest, largest, rtol=1e-3)
    np.testing.assert_allclose(measured.smallest, ALPHA_F + ALPHA_B, rtol=1e-3)
    assert measured.n_negative is None and measured.residual is not None
    assert measured.residual < 1e-3


def test_a_probe_finds_classes_that_a_line_parts_and_no_others():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    noise = rng.normal(size=(400, 5))
    parted = noise + 6 * labels[:, None]
    assert probe(parted[:200], labels[:200], parted[200:], labels[200:]) > 99
    assert probe(noise[:200], labels[:200], noise[200:], labels[200:]) < 65


def test_probed_activities_start_at_a_pass_and_relax_with_the_label_free(float64):
    model, images, _, inference = case()
    image = np.asarray(model.to_states(images))
    hand = ByHand(model, predict(model, image), image)
    start, relaxed = activities_of(model, images, inference)
    first = hand.amortised()
    last = hand.relaxed(first, *INFERS["bpc"], N_STEPS, RATE, free=range(3))
    for ours, theirs in zip([*start, *relaxed], [*first[1:-1], *last[1:-1]], strict=True):
        np.testing.assert_allclose(ours, theirs)


def test_xor_is_learnt_and_relaxing_goes_downhill():
    landscapes = xor_landscapes()
    assert set(landscapes) == {"bpc", "hpc", "discpc", "genpc"}
    for name in ("bpc", "discpc"):
        np.testing.assert_allclose(landscapes[name].predicted, [0, 1, 1, 0], atol=0.1)
    for each in landscapes.values():
        nearest = [np.abs(each.axis[:, None] - point).argmin(axis=0) for point in each.path]
        heights = [each.energy[tuple(place)] for place in nearest]
        assert heights[-1] <= heights[0] + 0.02 * np.ptp(each.energy)


RUNS = {
    "bpc": (),
    "bp": ("algorithm=bp",),
    "softmax": ("model.label_loss=cross_entropy", "n_train_iters=400", "test_every=400"),
    "seeds": ("n_seeds=2",),
}


@pytest.mark.slow
def test_landscapes_say_that_they_are_not_of_the_checkpoint(run_of, command, tmp_path):
    assert (
        "not of this checkpoint"
        in command(
            *("bpc-eval", run_of("bpc"), "diagnostics=[landscape]", "inference.n_steps=1")
        ).stdout
    )
    one = landscape_diagnostic.Landscape(
        np.linspace(-1, 1, 5), np.arange(25.0).reshape(5, 5), np.zeros((2, 2)), np.zeros(4)
    )
    title = landscape_diagnostic.draw({"bpc": one, "hpc": one}).get_suptitle()
    assert title.startswith("Not this checkpoint")


@pytest.fixture(scope="session")
def run_of(made_once, bpc_train):
    quick = ("data=digits", "model.depth=3", "model.width=32", "n_train_iters=60", "test_every=60")

    def trained(name):
        def make(run):
            code, _, err, _ = bpc_train(*quick, *RUNS[name], f"hydra.run.dir={run}")
            assert (code, err) == (0, "")

        return f"checkpoint={made_once(f'diagnosed-{name}', make)}"

    return trained


@pytest.mark.slow
def test_all_diagnostics_leave_numbers_and_pictures(run_of, command, tmp_path):
    done = command(
        *("bpc-eval", run_of("bpc"), "diagnostics=[all]", "diagnosis.n_images=50"),
        *("diagnosis.hidden=[0.5]", "inference.n_steps=4", "hydra.run.dir=eval"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    numbers = json.loads((tmp_path / "eval" / "metrics.json").read_text())["diagnostics"]
    assert set(numbers) == {"inference", "steps", "hessian", "probe", "completion", "landscape"}
    assert len(numbers["inference"]["gradient"]["mean"]) == 5
    assert len(numbers["steps"]["relaxed_accuracy"]) == 5
    assert len(numbers["probe"]["relaxed"]) == 2
    assert 0 <= numbers["completion"]["top"][0]["accuracy_by_relaxation"] <= 100
    assert "of where they are initialised" in done.stdout
    for name in ("inference", "steps", "probe", "completion", "completed", "landscape"):
        picture = np.asarray(Image.open(tmp_path / "eval" / f"{name}.png").convert("L"))
        assert picture.std() > 5


def test_inference_that_does_nothing_is_told(run_of, command):
    done = command("bpc-eval", run_of("bpc"), "diagnostics=[inference]", "inference.n_steps=1")
    assert done.returncode == 0
    assert done.stdout.count("inference does next to nothing in classification") == 1
    clamped = "with image and label clamped, 1 step of inference moves activities by "
    (line,) = [line for line in done.stdout.splitlines() if clamped in line]
    assert line.endswith("inference does next to nothing")


def test_diagnostics_follow_inference_until_it_settles(run_of, command, tmp_path):
    done = command(
        *("bpc-eval", run_of("bpc"), "diagnostics=[inference,steps,hessian]"),
        *("diagnosis.n_images=40", "hydra.run.dir=eval"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    metrics = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert metrics["inference_steps"] == 2  # the tests' own: as many as in training
    taken, found = metrics["diagnosis_steps"], metrics["diagnostics"]
    assert taken.keys() == {"inference", "steps"} and min(taken.values()) > 20
    assert len(found["inference"]["gradient"]["mean"]) == taken["inference"] + 1
    assert len(found["steps"]["relaxed_generation_error"]) == taken["steps"] + 1
    counts = ", ".join(f"{name} {count}" for name, count in taken.items())
    assert f"inference steps until the energy settles: {counts}\n" in done.stdout
    movement = found["inference"]["from_end"]["mean"]
    assert movement[-10] < 0.1 * movement[0]
    still = f"the energy still changes in {', '.join(n for n in taken if taken[n] == MOST_STEPS)}:"
    assert (still in done.stdout) is (MOST_STEPS in taken.values())


@pytest.mark.parametrize(
    ("rate", "is_reached"),
    [(0.5, True), (0.05, True), (1e-4, False), (50.0, False)],
)
def test_convergence_is_found_at_rates_that_reach_it(rate, is_reached, float64):
    """A linear network's energy falls as (1 - rate * curvature)^(2 n) in each direction."""
    model = small_model(0, [3, 4, 6], "linear")
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (5, 6), np.uint8))
    labels = jnp.asarray(rng.integers(0, 3, 5))
    inference = inference_of((ALPHA_F, ALPHA_B), sgd(rate), MOST_STEPS)
    curves = follow_energies(model, images, labels, inference)
    W, V = model.generator[1].weight, model.amortiser[0].weight
    hessian = ALPHA_F * (np.eye(4) + W.T @ W) + ALPHA_B * (np.eye(4) + V.T @ V)
    values = np.linalg.eigvalsh(hessian)
    found = find_convergence([np.asarray(curves["both"])])
    slowest = max(np.abs(1 - rate * values))
    assert found.is_reached is is_reached
    if is_reached:
        most = np.log(TOLERANCE) / np.log(slowest**2)
        assert 1 <= found.n_steps <= most + 1
    else:
        assert found.n_steps == MOST_STEPS


@pytest.mark.slow
def test_every_seed_is_diagnosed(run_of, command, tmp_path):
    done = command(
        *("bpc-eval", run_of("seeds"), "diagnostics=[completion]"),
        *("diagnosis.n_images=20", "diagnosis.hidden=[0.5]", "hydra.run.dir=eval"),
    )
    assert done.returncode == 0, done.stderr
    seeds = json.loads((tmp_path / "eval" / "metrics.json").read_text())["seeds"]
    assert all(seed["diagnostics"]["completion"]["hidden"] == [0.5] for seed in seeds)
    assert "seed 1: completion: top, 50 % hidden" in done.stdout


@pytest.mark.slow
def test_what_infers_nothing_has_no_diagnostics_of_inference(run_of, command, tmp_path):
    done = command("bpc-eval", run_of("bp"), "diagnostics=[inference,probe]")
    assert done.returncode == 1
    assert done.stderr.startswith("bpc-eval: diagnostics=[inference] are of inference, and this")
    assert len(done.stderr.splitlines()) == 1
    done = command(
        *("bpc-eval", run_of("bp"), "diagnostics=[all]", "diagnosis.n_images=20"),
        *("diagnosis.hidden=[0.5]", "hydra.run.dir=eval"),
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert set(metrics["diagnostics"]) == {"probe", "completion", "landscape"}


@pytest.mark.slow
def test_a_label_under_cross_entropy_is_not_free(run_of, command, tmp_path):
    done = command("bpc-eval", run_of("softmax"), "lowest_energy=true", "hydra.run.dir=eval")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert metrics["relaxed_accuracy"] is None
    assert metrics["lowest_energy_accuracy"] > 50
    assert "image clamped: accuracy" not in done.stdout


@pytest.mark.slow
def test_evaluation_infers_as_asked(run_of, command, tmp_path):
    arguments = ("bpc-eval", run_of("bpc"), "inference.n_steps=30")
    more = ("optim.activity=adam", "optim.activity_lr=0.05")
    changes = []
    for name, overrides in {
        "plain": (),
        "adam": more,
        "weighted": (*more, "forward_energy_weight=0.01"),
    }.items():
        done = command(*arguments, *overrides, f"hydra.run.dir={name}")
        assert done.returncode == 0, done.stderr
        metrics = json.loads((tmp_path / name / "metrics.json").read_text())
        changes.append(metrics["activity_change"])
    assert len(set(changes)) == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("diagnostics=[infrence]", "did you mean inference?"),
        ("diagnosis.hidden=[]", "diagnosis.hidden must be fractions"),
        ("diagnosis.hidden=[1.5]", "diagnosis.hidden must be fractions"),
        ("diagnosis.n_images=0", "diagnosis.n_images must be at least 1"),
        ("diagnostics=inference", "diagnostics"),
    ],
)
def test_wrong_diagnostics_are_one_line(override, message, run_of, command, tmp_path):
    done = command("bpc-eval", run_of("bpc"), override)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert message in done.stderr
    assert not (tmp_path / "outputs").exists()


def test_an_image_that_is_not_there_is_one_line(run_of, command, tmp_path):
    done = command(
        *("bpc-eval", run_of("bpc"), "diagnostics=[hessian]", "diagnosis.image=360"),
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert "diagnosis.image must be below 360" in done.stderr
    assert not (tmp_path / "outputs").exists()
