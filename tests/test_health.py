"""The health of training: what is a sign of bad health, what is none, and what a run does then."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import inference_of, learning_of, sgd, small_model

from bpc_cli.core.clamping import Clamping
from bpc_cli.core.energy import energy
from bpc_cli.core.inference import infer_each
from bpc_cli.core.learning import Batch, make_state, train_step
from bpc_cli.core.training import Chunk, Examples, Training, train_chunk
from bpc_cli.core.vitals import Vitals
from bpc_cli.runs.health import WINDOW, Health

CHANCE = 10.0


def vitals_of(weights=0.1, activities=1.0, gradients=(1.0, 1.0), n_seeds=1):
    rows = np.ones((n_seeds, 2))
    return Vitals(
        weights * rows, rows, rows * np.asarray(gradients), rows, activities * rows[:, :1]
    )


def watch(energies=(), climbing=None, tests=(), health=None):
    """Show a run's steps, then its tests, to a run's health; return what it found, by sign."""
    health = health or Health([0], CHANCE)
    if len(energies):
        energies = np.asarray(energies, float)[None]
        health.watch_steps(1, energies, np.zeros_like(energies) if climbing is None else climbing)
    for iteration, accuracy, vitals in tests:
        health.watch_test(iteration, [accuracy], vitals)
    return {finding.sign: finding for finding in health.findings}


FALLING = np.geomspace(100, 10, 5 * WINDOW)


def test_an_energy_that_runs_away_is_a_sign_since_its_window():
    found = watch([*FALLING, *[10.0] * WINDOW, *[300.0] * WINDOW])
    assert list(found) == ["energy"]
    assert found["energy"].since == 6 * WINDOW + 1
    line = found["energy"].in_a_line(of_several=False)
    assert line.startswith("training looks unstable: since iteration 121 the energy before inf")
    assert "30 times its lowest; what may help: lower optim.param_lr" in line


@pytest.mark.parametrize(
    "energies",
    [
        FALLING,
        [*FALLING, 500.0, *[10.0] * WINDOW],  # one odd batch
        [*FALLING, *np.geomspace(10, 1e-4, WINDOW), *[1e-3] * WINDOW],  # still next to nothing
        [0.0] * 3 * WINDOW,
    ],
)
def test_an_energy_that_is_well_is_no_sign(energies):
    assert watch(energies) == {}


def test_inference_that_climbs_for_some_samples_is_a_sign():
    climbing = np.zeros((1, 2 * WINDOW))
    assert watch([1.0] * 2 * WINDOW, climbing) == {}
    climbing[0, WINDOW + 3] = 0.5
    found = watch([1.0] * 2 * WINDOW, climbing)
    assert list(found) == ["inference"]
    assert (found["inference"].since, "2.5%" in found["inference"].seen) == (WINDOW + 1, True)


@pytest.mark.parametrize(
    ("tests", "signs"),
    [
        ([(50, 69.6, vitals_of()), (100, 15.7, vitals_of())], ["accuracy"]),
        ([(50, 69.6, vitals_of()), (100, 60.0, vitals_of())], []),
        ([(10, 25.0, vitals_of()), (20, 9.0, vitals_of())], []),  # nothing had been learnt yet
        ([(50, 10.0, vitals_of()), (150, 11.0, vitals_of())], []),  # it is early
        ([(50, 10.0, vitals_of()), (200, 11.0, vitals_of())], ["chance"]),
        ([(50, 80.0, vitals_of()), (100, 80.0, vitals_of(weights=5.0))], ["weights"]),
        ([(50, 80.0, vitals_of()), (100, 80.0, vitals_of(activities=50.0))], ["activities"]),
        ([(50, 80.0, vitals_of(gradients=(1.0, 0.0)))], ["gradients"]),
        ([(50, 80.0, vitals_of(gradients=(0.0, 0.0)))], []),  # this direction does not learn
        ([(50, 80.0, vitals_of(gradients=(1.0, 1e-5)))], []),
    ],
)
def test_what_a_test_point_shows_is_a_sign_or_none(tests, signs):
    assert list(watch(tests=tests)) == signs


def test_accuracy_is_no_sign_where_nothing_learns_to_classify():
    tests = [(50, 69.6, vitals_of()), (300, 9.0, vitals_of())]
    assert watch(tests=tests, health=Health([0], None)) == {}


def test_the_seeds_of_an_ensemble_are_told_apart():
    health = Health([3, 4, 5], CHANCE)
    tested = vitals_of(n_seeds=3)
    health.watch_test(50, [70.0, 80.0, 75.0], tested)
    health.watch_test(100, [70.0, 12.0, 11.0], tested)
    (finding,) = health.findings
    assert finding.seeds == [4, 5]
    assert "since iteration 100 (seed 4, 5) test accuracy has fallen to 12.0 %" in (
        finding.in_a_line(of_several=True)
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 70), min_size=1, max_size=6), st.integers(0, 99))
def test_findings_do_not_depend_on_where_a_run_is_cut(lengths, seed):
    """However it is cut into chunks and processes, whose state goes through a file."""
    rng = np.random.default_rng(seed)
    n = sum(lengths)
    energies = np.exp(rng.normal(0, 1, (1, n)).cumsum(axis=1))
    climbing = (rng.random((1, n)) < 0.01) * 0.3
    whole = Health([0], CHANCE)
    whole.watch_steps(1, energies, climbing)
    first, earlier = 0, None
    for length in lengths:
        part = Health([0], CHANCE, earlier)
        own = slice(first, first + length)
        part.watch_steps(first + 1, energies[:, own], climbing[:, own])
        earlier, first = json.loads(json.dumps(part.to_json())), own.stop
    assert part.findings == whole.findings
    assert part.to_json() == whole.to_json()


def test_sizes_that_overflow_can_be_saved():
    health = Health([0], CHANCE)
    health.watch_test(50, [80.0], vitals_of(weights=np.inf))
    health.watch_test(100, [80.0], vitals_of(activities=np.nan))
    assert [finding.sign for finding in health.findings] == ["activities"]
    assert json.loads(json.dumps(health.to_json(), allow_nan=False)) == health.to_json()


FOUND = {"sign": "energy", "since": 1, "seeds": [0], "seen": "energy grows"}


def earlier_with(**changed):
    """What a file holds, with a finding of which something is changed."""
    return Health([0], CHANCE).to_json() | {"findings": [FOUND | changed]}


def test_an_earlier_finding_is_taken_over():
    assert Health([0], CHANCE, earlier_with()).findings[0].seen == "energy grows"


@pytest.mark.parametrize(
    "earlier",
    [
        *(None, 3, [], {}, {"window": 1}, {"window": [[[1], [2, 3]]]}),
        *(earlier_with(sign="x"), earlier_with(since="1"), earlier_with(seeds="0")),
        *(earlier_with(seen="\x1b[31m"), earlier_with(seen=999 * "a"), earlier_with(more=1)),
        *(earlier_with(sign=[]), earlier_with(seeds=[[]]), earlier_with(seen=None)),
    ],
)
def test_what_a_file_holds_in_place_of_health_is_left_alone(earlier):
    assert Health([0], CHANCE, earlier).to_json() == Health([0], CHANCE).to_json()


def test_vitals_are_of_a_chunks_last_step(float64):
    model = small_model(0, (4, 5, 6, 9), "tanh", use_bias=True)
    inference, learning = inference_of((1.0, 0.5), sgd(0.1), 2), learning_of((1.0, 0.5), sgd(0.1))
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (20, 9), np.uint8))
    labels = jnp.asarray(rng.integers(0, 4, 20, np.uint8))
    rows = rng.integers(0, 20, (3, 4)).astype(np.int32)
    state = make_state(model, learning)
    step = eqx.filter_jit(train_step)
    for index in rows[:2]:
        batch = Batch(jax.nn.one_hot(labels[index], 4), model.to_states(images[index]))
        before, batch_before = state, batch
        state, metrics = step(state, batch, inference, learning)
    training = Training(inference, learning, (), jax.random.PRNGKey(0))
    chunk = Chunk(Examples(images, labels), rows, np.int32(2), training)
    *_, end = train_chunk(
        chunk, make_state(small_model(0, (4, 5, 6, 9), "tanh", use_bias=True), learning)
    )

    clampings = Clamping(batch_before.label, batch_before.image)
    relaxed = infer_each(before.model, clampings, inference).states

    def mean_energy(model):
        energies = jax.vmap(lambda *states: energy(model, states, learning.weights))
        return jnp.mean(energies(*relaxed.layers))

    gradients = eqx.filter_grad(mean_energy)(before.model)

    def sizes(layers):
        flat = [np.concatenate([np.ravel(a) for a in jax.tree.leaves(each)]) for each in layers]
        return [np.sqrt(np.mean(each**2)) for each in flat]

    expected = Vitals(
        sizes(state.model.generator),
        sizes(state.model.amortiser),
        sizes(gradients.generator),
        sizes(gradients.amortiser),
        sizes(relaxed.activities),
    )
    for ours, by_hand in zip(end.vitals, expected, strict=True):
        np.testing.assert_allclose(ours, by_hand, rtol=1e-9)
    assert float(metrics.climbing_fraction) == 0


UNSTABLE = (
    *("data=digits", "model.width=16", "n_train_iters=60", "test_every=20", "batch_size=16"),
    *("inference.reduction=sum", "inference.n_steps=4", "optim.activity_lr=1.5"),
)


def test_a_run_says_once_that_it_is_unstable(bpc_train, tmp_path):
    code, out, err, _ = bpc_train(*UNSTABLE, f"hydra.run.dir={tmp_path}/run")
    lines = [line for line in (out + err).splitlines() if "looks unstable" in line]
    assert code == 0
    assert len(set(lines)) == 1  # when it is seen, and again at the end
    assert "since iteration 1 inference raises the energy of" in lines[0]
    assert "what may help: lower optim." in lines[0]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["health"][0]["sign"] == "inference"
    assert (summary["health"][0]["since"], summary["health"][0]["seeds"]) == (1, [0])
    assert "looks unstable" in (tmp_path / "run" / "train.log").read_text()


@pytest.mark.parametrize("more", [(), ("n_seeds=2",)])
def test_an_unstable_run_can_be_ended(more, bpc_train, tmp_path):
    directory = f"hydra.run.dir={tmp_path}/run"
    code, _, err, _ = bpc_train(*UNSTABLE, *more, "on_instability=stop", directory)
    assert code == 1
    assert err.startswith("bpc-train: training looks unstable: since iteration 1")
    assert "the state of iteration 20 is in checkpoints/last.ckpt" in err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["status"], summary["final"]["iteration"]) == ("unstable", 20)
    code, out, err, _ = bpc_train(*UNSTABLE, *more, "on_instability=ignore", directory)
    assert (code, err, "looks unstable" in out) == (0, "", False)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["health"] == []
