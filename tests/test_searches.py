"""Searches with Optuna: what is tried, what is remembered, what ends early."""

import importlib.util
import json
import shutil
import statistics
from pathlib import Path

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from run_files import lines_of, status_of, summary_of

from bpc_cli.cli.search.space import read_space

SMALL = ("data=digits", "model.width=16", "n_train_iters=6", "test_every=2")
SEARCH = ("-m", "hydra/sweeper=optuna", *SMALL)
ALPHA = "forward_energy_weight=tag(log, interval(1e-3, 1))"


def study_in(sweep: Path) -> "optuna.Study":
    """Read a search's study by Optuna's own means."""
    storage = JournalStorage(JournalFileBackend(str(sweep / "study.journal")))
    return optuna.load_study(study_name="bpc", storage=storage)


def space_of(*words: str):
    return read_space(OverridesParser.create().parse_overrides(list(words)))


@pytest.fixture(scope="module")
def search(made_once, bpc_train) -> Path:
    """Four trials over a weight and a word, for accuracy."""

    def make(directory: Path) -> None:
        words = (ALPHA, "algorithm=bpc,hpc", "hydra.sweeper.n_trials=4")
        code, out, err, _ = bpc_train(*SEARCH, *words, f"hydra.sweep.dir={directory}")
        assert code == 0, err
        assert "4 trials in" in out and "forward_energy_weight=[0.001, 1] (log)" in out
        assert "are compared on the test set" in err
        best = study_in(directory).best_trial
        assert f"best:\n  job {best.number}, test accuracy {best.value:.2f} %: bpc-train" in out
        assert out.count(" finished\n") == 4
        assert "[α_f=" in out

    return made_once("search", make)


def test_trials_are_runs_and_their_values_what_the_runs_measured(search):
    study = study_in(search)
    assert [trial.state for trial in study.trials] == 4 * [TrialState.COMPLETE]
    assert study.direction.name == "MAXIMIZE"
    for trial in study.trials:
        run = search / str(trial.number)
        assert trial.value == summary_of(run)["final"]["test_accuracy"]
        words = (run / ".hydra" / "overrides.yaml").read_text()
        assert f"forward_energy_weight={trial.params['forward_energy_weight']}\n" in words
        assert f"algorithm={trial.params['algorithm']}\n" in words
        tested = {line["iteration"]: line["test_accuracy"] for line in lines_of(run)}
        reported = {step: tested[step] for step in (2, 4)}  # the last is not one to end early at
        assert trial.intermediate_values == reported
    assert len({trial.params["forward_energy_weight"] for trial in study.trials}) == 4


def test_the_same_search_does_nothing_and_a_longer_one_adds_trials(search, bpc_train, tmp_path):
    copy = Path(shutil.copytree(search, tmp_path / "search"))
    words = (*SEARCH, ALPHA, "algorithm=bpc,hpc", f"hydra.sweep.dir={copy}")
    before = (copy / "0" / "metrics.jsonl").read_bytes()
    code, out, err, _ = bpc_train(*words, "hydra.sweeper.n_trials=4")
    assert (code, "4 finished already" in out) == (0, True), err
    assert bpc_train(*words, "hydra.sweeper.n_trials=5")[0] == 0
    assert len(study_in(copy).trials) == 5
    assert (copy / "0" / "metrics.jsonl").read_bytes() == before
    assert (copy / "4" / "summary.json").exists()
    code, _, err, _ = bpc_train(*words, "hydra.sweeper.objective=generation_error")
    assert (code, err.count("\n")) == (1, 1)
    assert "study.journal holds a search of other values" in err


def test_a_trial_that_was_ended_from_outside_is_resumed(search, bpc_train, tmp_path):
    """The last trial of a search that was killed has a run without a summary."""
    words = (*SEARCH, ALPHA, "algorithm=bpc,hpc", "hydra.sweeper.n_trials=4")
    copy = Path(shutil.copytree(search, tmp_path / "search"))
    journal = (copy / "study.journal").read_text().splitlines(keepends=True)
    told = [n for n, line in enumerate(journal) if json.loads(line)["op_code"] == 6]
    (copy / "study.journal").write_text("".join(journal[: told[-1]]))  # 3's end was not told
    (copy / "3" / "summary.json").unlink()
    assert study_in(copy).trials[3].state == TrialState.RUNNING
    code, out, err, _ = bpc_train(*words, f"hydra.sweep.dir={copy}")
    assert (code, "3 finished already" in out) == (0, True), err
    assert [t.params for t in study_in(copy).trials] == [t.params for t in study_in(search).trials]
    assert [t.values for t in study_in(copy).trials] == [t.values for t in study_in(search).trials]


def test_a_trial_below_the_median_is_pruned_and_not_run_again(bpc_train, command, tmp_path):
    words = (*SEARCH, ALPHA, "optim.param_lr=choice(1e-2,1e-9)", "hydra.sweeper.n_trials=9")
    words += ("hydra.sweeper.sampler=random", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    code, out, err, _ = bpc_train(*words)
    assert code == 0, err
    trials = study_in(tmp_path / "sweep").trials
    pruned = [trial.number for trial in trials if trial.state == TrialState.PRUNED]
    assert pruned and out.count(" pruned\n") == len(pruned)
    for number in pruned:
        reported = trials[number].intermediate_values
        earlier = [t for t in trials[:number] if t.state == TrialState.COMPLETE]
        median = statistics.median(t.intermediate_values[max(reported)] for t in earlier)
        assert max(reported.values()) < median
        run = tmp_path / "sweep" / str(number)
        assert status_of(run) == "pruned"
        assert max(line["iteration"] for line in lines_of(run)) == max(reported) < 6
        assert (run / "checkpoints" / "last.ckpt").exists()
    before = (run / "summary.json").read_bytes()
    assert bpc_train(*words)[0] == 0
    assert (run / "summary.json").read_bytes() == before
    done = command("bpc-report", "sweep")
    assert done.stdout.startswith(f"9 runs, {len(pruned)} of them not finished")


def test_two_objectives_leave_trials_that_none_is_better_than(bpc_train, tmp_path):
    words = (*SEARCH, ALPHA, "hydra/launcher=vmap", "hydra.sweeper.n_jobs=2")
    words += ("hydra.sweeper.n_trials=4", "hydra.sweeper.objective=both", "seed=range(1,3)")
    code, out, err, _ = bpc_train(*words, f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert code == 0, err
    study = study_in(tmp_path / "sweep")
    for trial in study.trials:
        final = summary_of(tmp_path / "sweep" / str(trial.number))["final"]
        assert trial.values == [final["test_accuracy"], final["generation_error"]]
    best = [trial.number for trial in study.best_trials]
    assert [f"  job {n}, test accuracy" in out for n in range(4)] == [n in best for n in range(4)]


def test_a_failing_trial_is_listed_and_the_others_run(bpc_train, tmp_path):
    words = (*SEARCH, "optim.param_lr=choice(1e-3,1e30)", "hydra.sweeper.n_trials=4")
    words += ("hydra.sweeper.sampler=random", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    code, _, err, _ = bpc_train(*words)
    states = [trial.state for trial in study_in(tmp_path / "sweep").trials]
    assert {*states} == {TrialState.COMPLETE, TrialState.FAIL}
    assert (code, f"{states.count(TrialState.FAIL)} of 4 jobs failed" in err) == (1, True)


def test_spaces_are_read_from_hydras_grammar():
    space = space_of(
        "a=interval(1,2)",
        "b=tag(log, interval(1e-4, 1))",
        "c=int(interval(1,9))",
        "d=range(2,9,3)",
        "e=x,y",
        "f=choice(0.1, 1)",
        "g=7",
        "h=range(0.5,2.1,0.5)",
    )
    assert space.fixed == ["g=7"]
    assert space.distributions == {
        "a": optuna.distributions.FloatDistribution(1, 2),
        "b": optuna.distributions.FloatDistribution(1e-4, 1, log=True),
        "c": optuna.distributions.IntDistribution(1, 9),
        "d": optuna.distributions.IntDistribution(2, 8, step=3),
        "e": optuna.distributions.CategoricalDistribution(["x", "y"]),
        "f": optuna.distributions.CategoricalDistribution(["0.1", "1"]),
        "h": optuna.distributions.FloatDistribution(0.5, 2.0, step=0.5),
    }


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("a=1", "needs something to search"),
        ("a=tag(log, interval(0, 1))", "tag(log, …) needs bounds above 0"),
        ("a=tag(log, range(1, 9))", "needs an interval, not a range"),
        ("a=tag(log, choice(1, 2))", "is for an interval"),
        ("a=tag(lgo, interval(1, 2))", "there is no tag 'lgo'"),
        ("a=interval(2, 1)", "nothing lies between 2"),
    ],
)
def test_a_space_that_cannot_be_searched_is_explained(word, message):
    with pytest.raises(HydraException, match=r"hydra/sweeper=optuna|a: ") as error:
        space_of(word)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "needs something to search"),
        (("model.width=interval(1,9)",), "model.width"),
        (("forward_energy_weight=interval(-1,1)",), "forward_energy_weight"),
        (
            (ALPHA, "hydra.sweeper.objective=speed"),
            "must be one of accuracy, generation_error, reconstruction_error, both",
        ),
        ((ALPHA, "hydra.sweeper.n_trials=0"), "must be a whole number from 1"),
        (
            (ALPHA, "hydra.sweeper.objective=both", "hydra.sweeper.pruner=median"),
            "pruner=median needs one objective",
        ),
    ],
)
def test_a_wrong_search_is_one_line_and_leaves_nothing(words, message, bpc_train, tmp_path):
    code, _, err, _ = bpc_train(*SEARCH, *words, f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert code == 1
    assert message in err and len(err.splitlines()) <= 2
    assert "Error in call" not in err
    assert not (tmp_path / "sweep").exists()


def test_a_search_is_for_training_alone(command):
    done = command(
        "bpc-eval", "-m", "hydra/sweeper=optuna", "checkpoint=run", "optim.activity_lr=1,2"
    )
    assert (done.returncode, done.stderr) == (
        1,
        "bpc-eval: hydra/sweeper=optuna is for bpc-train alone\n",
    )


def test_without_optuna_the_extra_is_named(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "optuna" else found(name, *rest),
    )
    from bpc_cli.cli.search.sweeper import SearchSweeper

    sweeper = SearchSweeper(objective="accuracy")
    with pytest.raises(HydraException, match=r"^hydra/sweeper=optuna needs .*bpc-cli\[sweep\]'"):
        sweeper.setup(hydra_context=None, task_function=None, config=None)


def test_a_file_that_is_no_search_is_explained(bpc_train, tmp_path):
    (tmp_path / "study.journal").write_text("no journal\n")
    code, _, err, _ = bpc_train(*SEARCH, ALPHA, f"hydra.sweep.dir={tmp_path}")
    assert (code, "study.journal is no search's file" in err) == (1, True)
    assert "Traceback" not in err
