"""Many runs in one command: seeds together, sweeps, and the launchers that run them."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from run_files import assert_same_run, lines_of, summary_of

from bpc_cli.cli.sweeping import Sweep, swept_values
from bpc_cli.options.schema import TrainConfig
from bpc_cli.runs.checkpoints.checkpoint import read_checkpoint

SMALL = ("data=digits", "model.width=32", "n_train_iters=20", "test_every=10")
LOSSES = ("gen_loss", "amort_loss", "energy_before", "energy_after", "generation_error")
TOLERANCES = {"test_accuracy": {"abs": 1.0}, **{name: {"rel": 2e-3} for name in LOSSES}}


def files_in(run: Path) -> set[str]:
    return {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}


def assert_close(lines: list[dict], expected: list[dict]) -> None:
    """The same run but for rounding: figures agree, and a few images may be named otherwise."""
    assert len(lines) == len(expected)
    for ours, theirs in zip(lines, expected, strict=True):
        assert ours.keys() == theirs.keys()
        assert (ours["iteration"], ours["seed"]) == (theirs["iteration"], theirs["seed"])
        for name, tolerance in TOLERANCES.items():
            if theirs[name] is None:
                assert ours[name] is None
            else:
                assert ours[name] == pytest.approx(theirs[name], **tolerance), name


@pytest.fixture(scope="session")
def three_seeds(made_once, bpc_train) -> Path:
    """A run of seeds 4, 5 and 6 together."""

    def make(run: Path) -> None:
        code, _, err, _ = bpc_train(*SMALL, "seed=4", "n_seeds=3", f"hydra.run.dir={run}")
        assert (code, err) == (0, "")

    return made_once("three-seeds", make)


def test_each_of_several_seeds_is_the_run_of_that_seed(three_seeds, bpc_train, tmp_path):
    together = lines_of(three_seeds)
    assert [line["seed"] for line in together[:6]] == [4, 5, 6, 4, 5, 6]
    for seed in (4, 5, 6):
        run = tmp_path / str(seed)
        code, _, err, _ = bpc_train(*SMALL, f"seed={seed}", f"hydra.run.dir={run}")
        assert (code, err) == (0, "")
        assert_close([line for line in together if line["seed"] == seed], lines_of(run))


def test_the_summary_of_several_seeds_sums_up_their_own_lines(three_seeds):
    last = [line for line in lines_of(three_seeds) if line["iteration"] == 20]
    summary = summary_of(three_seeds)
    accuracies = [line["test_accuracy"] for line in last]
    assert [{**line, "seconds": None} for line in summary["seeds"]] == last
    assert summary["final"]["test_accuracy"] == pytest.approx(sum(accuracies) / 3)
    spread = summary["final_spread"]["test_accuracy"]
    assert spread["n"] == 3
    assert min(accuracies) <= spread["low"] <= spread["mean"] <= spread["high"] <= max(accuracies)


def test_eval_reports_every_seed(three_seeds, command, tmp_path):
    done = command("bpc-eval", f"checkpoint={three_seeds}", "hydra.run.dir=eval")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    last = [line for line in lines_of(three_seeds) if line["iteration"] == 20]
    for figures, line in zip(metrics["seeds"], last, strict=True):
        assert figures["seed"] == line["seed"]
        assert figures["test_accuracy"] == pytest.approx(line["test_accuracy"], abs=0.3)
        assert figures["generation_error"] == pytest.approx(line["generation_error"], rel=1e-4)
        assert f"seed {line['seed']}" in done.stdout
    assert sum(map(sum, metrics["confusion"])) == 3 * metrics["test_examples"]


def test_several_seeds_go_on_to_the_bit(three_seeds, bpc_train, tmp_path):
    arguments = [*SMALL, "seed=4", "n_seeds=3", f"hydra.run.dir={tmp_path / 'run'}"]
    assert bpc_train(*arguments, "n_train_iters=10")[0] == 0
    code, out, _, _ = bpc_train(*arguments)
    assert code == 0
    assert "after iteration 10" in out
    assert lines_of(tmp_path / "run") == lines_of(three_seeds)
    ours, theirs = (
        read_checkpoint(run / "checkpoints" / "last.ckpt")
        for run in (tmp_path / "run", three_seeds)
    )
    assert ours.payload == theirs.payload
    code, _, err, _ = bpc_train(*arguments, "n_seeds=2")
    assert code == 1
    assert "n_seeds (was 3, now 2)" in err


SWEEP = ("forward_energy_weight=1,1e-3", "model.depth=2,1", "seed=0,1")


@pytest.fixture
def basic_sweep(bpc_train, tmp_path) -> Path:
    """A sweep by Hydra's basic launcher."""
    directory = tmp_path / "basic"
    code, _, err, _ = bpc_train("-m", *SMALL, *SWEEP, f"hydra.sweep.dir={directory}")
    assert (code, err) == (0, "")
    return directory


def test_the_vmap_launcher_leaves_what_the_basic_one_does(basic_sweep, command, tmp_path):
    done = command(
        *("bpc-train", "-m", *SMALL, *SWEEP, "hydra/launcher=vmap", "hydra.sweep.dir=sweep"),
        *("hydra.launcher.group_size=3",),
    )
    assert (done.returncode, done.stderr) == (0, "")
    for job in range(8):
        ours, theirs = tmp_path / "sweep" / str(job), basic_sweep / str(job)
        assert files_in(ours) == files_in(theirs)
        assert_close(lines_of(ours), lines_of(theirs))
        assert summary_of(ours)["status"] == "finished"
        for file in ("config.yaml", "overrides.yaml"):
            assert (ours / ".hydra" / file).read_text() == (theirs / ".hydra" / file).read_text()
        one, other = (read_checkpoint(run / "checkpoints" / "last.ckpt") for run in (ours, theirs))
        assert one.header["arrays"] == other.header["arrays"]
        assert one.header["config"] == other.header["config"]


def test_a_sweep_given_again_runs_what_is_missing(command, tmp_path):
    arguments = (
        *("bpc-train", "-m", *SMALL, "optim.param=sgd", "optim.param_lr=1e-3,1e30,1e-2"),
        "hydra.sweep.dir=sweep",
    )
    first = command(*arguments)
    assert first.returncode == 1
    *_, reason, verdict = first.stderr.splitlines()
    assert reason.startswith("bpc-train: sweep/1: training diverged")
    assert verdict == "bpc-train: 1 of 3 jobs failed"
    assert first.stdout.splitlines()[0] == "3 jobs in sweep: param_lr=0.001,1e+30,0.01"
    statuses = [summary_of(tmp_path / "sweep" / str(job))["status"] for job in range(3)]
    assert statuses == ["finished", "diverged", "finished"]
    assert "diverged" in summary_of(tmp_path / "sweep" / "1")["reason"]
    finished = (tmp_path / "sweep" / "0" / "metrics.jsonl").read_bytes()
    # One job vanishes, as if the sweep had been killed before it.
    (tmp_path / "sweep" / "2").rename(tmp_path / "moved")
    again = command(*arguments)
    assert again.returncode == 1
    assert "[param_lr=0.001] sweep/0 holds this run, finished: nothing to do" in again.stdout
    assert again.stdout.splitlines()[0].endswith("param_lr=0.001,1e+30,0.01; 1 finished already")
    assert "sweep/1: training diverged" in again.stderr
    assert (tmp_path / "sweep" / "0" / "metrics.jsonl").read_bytes() == finished
    assert lines_of(tmp_path / "sweep" / "2") == lines_of(tmp_path / "moved")


@pytest.mark.parametrize("launcher", ["basic", "vmap"])
def test_every_line_of_a_job_says_what_is_swept_and_a_table_ends_the_sweep(
    launcher, command, tmp_path
):
    done = command(
        *("bpc-train", "-m", *SMALL, "forward_energy_weight=1,1e-3", "model.use_bias=false"),
        *("seed=0,3", f"hydra/launcher={launcher}", "hydra.sweep.dir=s"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    first, *lines = done.stdout.splitlines()
    assert first == "4 jobs in s: α_f=1,0.001 × seed=0,3"
    table = lines[-6:]
    of_jobs = [line for line in lines[:-6] if not line.startswith(("Launching", *"123"))]
    for job, prefix in enumerate(
        f"[α_f={weight} seed={seed}] " for weight in ("1", "0.001") for seed in (0, 3)
    ):
        run = tmp_path / "s" / str(job)
        own = [line.removeprefix(prefix) for line in of_jobs if line.startswith(prefix)]
        logged = [line.split(" ", 2)[2] for line in (run / "train.log").read_text().splitlines()]
        assert own == logged  # which has no prefix, nor has a single run's console
        assert own[0].startswith("Iter 10, gen loss=")
        final = summary_of(run)["final"]
        assert table[2 + job].split()[:5] == [
            *(str(job), prefix[1:-2].split()[0][4:], prefix[-3]),
            *(f"{final['test_accuracy']:.2f}", f"{final['generation_error']:.4f}"),
        ]
        assert table[2 + job].endswith("  finished")
    assert len(of_jobs) == 4 * 3
    assert table[1].split() == [
        "job",
        "α_f",
        "seed",
        *("accuracy", "%", "error", "seconds", "status"),
    ]
    assert max(map(len, table)) <= 80
    if launcher == "basic":
        assert [line.partition(",")[0] for line in lines if "about" in line] == [
            f"{n} of 4 jobs done" for n in (1, 2, 3)
        ]


def test_swept_options_have_short_names_where_no_other_has_them():
    jobs = [
        ["data=digits", "data.name=a", "optim.param_lr=1", "model.act_fn=relu", "seed=0"],
        ["data=digits", "data.name=b", "optim.param_lr=2", "model.act_fn=tanh", "seed=0"],
    ]
    assert swept_values(jobs, TrainConfig) == {
        "data.name": ["a", "b"],  # not algorithm.name
        "param_lr": ["1", "2"],
        "act_fn": ["relu", "tanh"],
    }


def test_a_table_of_many_swept_options_is_cut_off_to_fit(tmp_path):
    options = ["model.width", "inference.forward_layer_weights", "data.dir", "optim.param", "seed"]
    jobs = [[f"{option}={letter * 30}" for option in options] for letter in "ab"]
    sweep = Sweep(tmp_path, jobs, [tmp_path / "0", tmp_path / "1"], TrainConfig)
    lines = sweep.table().splitlines()
    assert max(map(len, lines)) <= 80
    assert all(line.endswith("not run") for line in lines[2:])
    assert len(sweep.prefix(0)) <= 63


def test_evaluations_of_a_sweep_are_told_apart(three_seeds, command):
    done = command(
        *("bpc-eval", "-m", f"checkpoint={three_seeds}", "which=best,last", "data=digits"),
        *("inference.n_steps=0", "hydra.sweep.dir=e"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    _, *lines = done.stdout.splitlines()
    of_jobs = [line for line in lines[:-4] if not line.startswith("1 of 2 jobs done")]
    assert {line.partition("] ")[0] for line in of_jobs} == {"[which=best", "[which=last"}
    assert [line.split()[::5] for line in lines[-2:]] == [["0", "finished"], ["1", "finished"]]


def test_a_killed_sweep_is_finished_by_giving_it_again(started, command, tmp_path):
    arguments = (
        *("bpc-train", "-m", *SMALL, "n_train_iters=200", "checkpoint_every=10"),
        *("forward_energy_weight=1,0.1,0.01", "hydra/launcher=vmap", "hydra.sweep.dir=sweep"),
    )
    process = started(*arguments)
    deadline = time.monotonic() + 120
    while not (tmp_path / "sweep/0/checkpoints/previous.ckpt").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    again = command(*arguments)
    assert (again.returncode, again.stderr) == (0, "")
    assert "resumed from" in again.stdout
    for job in ("0", "1", "2"):
        run = tmp_path / "sweep" / job
        assert summary_of(run)["status"] == "finished"
        assert [line["iteration"] for line in lines_of(run)] == list(range(1, 201))


@pytest.mark.parametrize(
    ("values", "last"),
    [
        ("forward_energy_weight=1,0.1,0.01,1e-3", "finished"),
        pytest.param("optim.param_lr=1e-3,2e-3,3e-3,1e30", "diverged", marks=pytest.mark.slow),
    ],
)
def test_what_a_sweep_still_has_to_do_does_not_change_its_bits(values, last, command, tmp_path):
    sweep = (
        *("bpc-train", "-m", *SMALL, "model.width=16", "checkpoint_every=4", values),
        "hydra/launcher=vmap",
    )
    command(*sweep, "hydra.sweep.dir=whole")
    command(*sweep, "n_train_iters=10", "hydra.sweep.dir=again")
    shutil.rmtree(tmp_path / "again" / "0")  # it begins anew while others wait
    shutil.rmtree(tmp_path / "again" / "3")
    shutil.copytree(tmp_path / "whole" / "3", tmp_path / "again" / "3")  # it has been done
    done = command(*sweep, "hydra.sweep.dir=again")
    assert ("again/3 holds this run, finished" in done.stdout) == (last == "finished")
    for job, status in enumerate(["finished", "finished", "finished", last]):
        run, expected = tmp_path / "again" / str(job), tmp_path / "whole" / str(job)
        assert_same_run(run, expected, status)


def test_on_divergence_stop_ends_those_that_train_together(command, tmp_path):
    done = command(
        *("bpc-train", "-m", *SMALL, "optim.param=sgd", "optim.param_lr=1e-3,1e30"),
        *("model.depth=2,1", "on_divergence=stop", "hydra/launcher=vmap", "hydra.sweep.dir=s"),
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    statuses = {
        run.name: summary_of(run)["status"]
        for run in (tmp_path / "s").iterdir()
        if (run / "summary.json").exists()
    }
    assert statuses == {"0": "interrupted", "2": "diverged"}


def test_joblib_runs_jobs_in_processes_and_tells_of_all(own_process, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="the extra sweep")
    done = own_process(
        *("bpc-train", "-m", *SMALL, "log_every=1,0,5,-1"),
        *("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=sweep"),
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-3:] == [
        "bpc-train: sweep/1: log_every must be at least 1, not 0",
        "bpc-train: sweep/3: log_every must be at least 1, not -1",
        "bpc-train: 2 of 4 jobs failed",
    ]
    assert re.search(r"^\[log_every=5\] Iter 20, gen loss=", done.stdout, re.MULTILINE)
    for job, status in enumerate(["finished", "failed", "finished", "failed"]):
        assert summary_of(tmp_path / "sweep" / str(job))["status"] == status


@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them(started, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="the extra sweep")
    process = started(
        *("bpc-train", "-m", *SMALL[:2], "n_train_iters=10000000", "test_every=5000000"),
        *("seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=sweep"),
    )
    deadline = time.monotonic() + 200
    runs = [tmp_path / "sweep" / str(job) for job in range(2)]
    while not all((run / "metrics.jsonl").exists() for run in runs):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) >= 2
    process.kill()
    _, alive = psutil.wait_procs(workers, timeout=60)
    for worker in alive:
        worker.kill()
    assert not alive


@pytest.mark.proof
def test_a_cluster_job_that_is_timed_out_goes_on_by_itself(own_process, tmp_path):
    pytest.importorskip("submitit", reason="the extra sweep")
    done = own_process(
        *("bpc-train", "-m", "data=digits", "model.width=64", "n_train_iters=1000000"),
        *("test_every=500000", "log_every=1000", "forward_energy_weight=1"),
        *("hydra/launcher=submitit_local", "hydra.launcher.timeout_min=1"),
        *("hydra.launcher.max_num_timeout=1", "hydra.sweep.dir=sweep"),
    )
    # It may be timed out once, after half a minute; the second time it is given up.
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "timed-out too many times" in done.stderr
    run = tmp_path / "sweep" / "0"
    assert (run / "train.log").read_text().count("resumed from") == 1
    last = read_checkpoint(run / "checkpoints" / "last.ckpt").header["iteration"]
    numbers = [line["iteration"] for line in lines_of(run)]
    assert numbers == list(range(1000, last + 1, 1000))


WITHOUT = """
import sys
sys.modules["hydra_plugins.hydra_joblib_launcher"] = None
sys.modules["submitit"] = None
sys.argv = ["bpc-train", "-m", "seed=0,1", "hydra/launcher={launcher}"]
from bpc_cli.train import main
main()
"""


@pytest.mark.parametrize("launcher", ["joblib", "submitit_slurm"])
def test_a_launcher_that_is_not_installed_names_its_extra(launcher, environment, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(launcher=launcher)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"bpc-train: hydra/launcher={launcher} needs the extra 'sweep': "
        "pip install 'bpc-cli[sweep]'\n"
    )
