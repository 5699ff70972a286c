"""Runs that are stopped, killed or damaged: what was saved is there, and goes on as if whole."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import environment_in
from run_files import assert_same_run, lines_of, status_of, summary_of

from bpc_cli.errors import UserError
from bpc_cli.runs.checkpoints.checkpoint import read_checkpoint
from bpc_cli.runs.directory import RunDirectory

# Small, and at work on its directory most of the time.
SMALL = (
    *("data=digits", "model.width=32", "n_train_iters=400", "test_every=40"),
    *("checkpoint_every=10", "keep_every=100", "save_samples=true"),
)
LONG = ("data=digits", "model.width=32", "n_train_iters=10000000", "test_every=5000000")
PROGRAM = Path(sys.executable).with_name("bpc-train")
STOPPING = "saving and stopping; a second signal stops at once"


@pytest.fixture(scope="session")
def uninterrupted(made_once) -> Path:
    """A run of SMALL that nothing has disturbed, by a process of its own."""

    def make(run: Path) -> None:
        environment = environment_in(run)
        arguments = [PROGRAM, *SMALL, f"hydra.run.dir={run}"]
        subprocess.run(arguments, env=environment, check=True, timeout=300)

    return made_once("uninterrupted", make)


def content_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def wait_until(happens, process: subprocess.Popen, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not happens() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.0005)


def moment_of(kill: int, run: Path, seconds: float):
    """When to kill: in turn any time, or while a file is being written, or curves are drawn."""
    if kill % 3 == 0:
        at = time.monotonic() + random.uniform(0, seconds)
        return lambda: time.monotonic() > at
    nth = random.randint(1, 30)
    seen = set()

    def writing_a_checkpoint() -> bool:
        seen.update(path.name for path in (run / "checkpoints").glob(".*.tmp"))
        return len(seen) >= nth

    def drawing_curves() -> bool:
        metrics = run / "metrics.jsonl"
        return metrics.exists() and metrics.read_bytes().count(b"\n") == 400

    return writing_a_checkpoint if kill % 3 == 1 else drawing_curves


def test_a_killed_run_goes_on_as_if_it_had_not_been(
    kill, started, command, tmp_path, uninterrupted
):
    run = tmp_path / "run"
    seconds = summary_of(uninterrupted)["seconds"]["total"]
    killed = False
    while not killed:  # a random moment may come after the end
        shutil.rmtree(run, ignore_errors=True)
        process = started("bpc-train", *SMALL, "hydra.run.dir=run")
        wait_until(moment_of(kill, run, seconds), process)
        process.kill()
        process.communicate()
        killed = process.returncode == -signal.SIGKILL
    done = command("bpc-train", *SMALL, "hydra.run.dir=run")
    assert (done.returncode, done.stderr) == (0, "")
    assert_same_run(run, uninterrupted)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGUSR1, 138, marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_and_stops_and_the_run_goes_on(
    number, code, started, command, tmp_path, uninterrupted
):
    run = tmp_path / "run"
    process = started("bpc-train", *SMALL, "hydra.run.dir=run")
    wait_until((run / "checkpoints" / "last.ckpt").exists, process)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == code
    assert stderr.splitlines() == [
        f"{number.name}: {STOPPING}",
        "bpc-train: interrupted; the same command with hydra.run.dir=run resumes",
    ]
    assert status_of(run) == "interrupted"
    saved = read_checkpoint(run / "checkpoints" / "last.ckpt").header["iteration"]
    assert saved == lines_of(run)[-1]["iteration"] < 400
    done = command("bpc-train", *SMALL, "hydra.run.dir=run")
    resumed = f"resumed from {run}/checkpoints/last.ckpt after iteration {saved}"
    assert done.stdout.splitlines()[0] == resumed
    assert_same_run(run, uninterrupted)


@pytest.mark.slow
def test_a_second_signal_stops_at_once_and_loses_nothing_saved(started, tmp_path):
    run = tmp_path / "run"
    process = started("bpc-train", *LONG, "checkpoint_every=1000", "hydra.run.dir=run")
    wait_until((run / "checkpoints" / "previous.ckpt").exists, process)
    process.send_signal(signal.SIGSTOP)  # so that both signals come before it can act on one
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=60)
    assert process.returncode in (130, 143)
    assert not (run / "summary.json").exists()
    saved = read_checkpoint(run / "checkpoints" / "last.ckpt")
    assert saved.header["metrics_bytes"] <= (run / "metrics.jsonl").stat().st_size


def test_a_signal_ends_a_whole_sweep(started, tmp_path):
    process = started("bpc-train", "-m", *LONG, "seed=0,1", "hydra.sweep.dir=sweep")
    wait_until((tmp_path / "sweep" / "0" / "metrics.jsonl").exists, process)
    wait_until(lambda: (tmp_path / "sweep" / "0" / "metrics.jsonl").stat().st_size, process)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 143
    assert stderr.splitlines()[-1].endswith("with hydra.sweep.dir=sweep resumes")
    assert status_of(tmp_path / "sweep" / "0") == "interrupted"
    assert not (tmp_path / "sweep" / "1").exists()


def test_a_second_process_is_refused_and_names_the_first(started, command, tmp_path):
    process = started("bpc-train", *LONG, "hydra.run.dir=run")
    wait_until((tmp_path / "run" / "metrics.jsonl").exists, process)
    done = command("bpc-train", *LONG, "hydra.run.dir=run")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert f"run is in use by process {process.pid} on {os.uname().nodename}" in done.stderr
    process.kill()
    process.communicate()
    # The lock has died with its owner.
    done = command("bpc-train", *LONG[:2], "n_train_iters=40", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr


def test_another_run_is_gone_on_with_in_a_new_directory(command, tmp_path, uninterrupted):
    expected = uninterrupted
    first = [word for word in SMALL if "n_train_iters" not in word]
    done = command("bpc-train", *first, "n_train_iters=120", "hydra.run.dir=first")
    assert done.returncode == 0, done.stderr
    before = content_of(tmp_path / "first")
    done = command("bpc-train", *SMALL, "resume=first", "hydra.run.dir=second")
    assert done.returncode == 0, done.stderr
    shutil.copy(
        tmp_path / "first/checkpoints/iteration_0000100.ckpt", tmp_path / "second/checkpoints"
    )
    for grid in (tmp_path / "first/samples").iterdir():
        shutil.copy(grid, tmp_path / "second/samples")
    assert_same_run(tmp_path / "second", expected)
    assert content_of(tmp_path / "first") == before
    # From a checkpoint on its own, the metrics begin after it.
    shutil.copy(tmp_path / "first" / "checkpoints" / "last.ckpt", tmp_path / "alone.ckpt")
    done = command("bpc-train", *SMALL, "resume=alone.ckpt", "hydra.run.dir=third")
    assert "there are metrics from the checkpoint on alone" in done.stdout
    assert lines_of(tmp_path / "third") == lines_of(expected)[120:]


def copy_of(expected: Path, tmp_path: Path) -> Path:
    """The run as a kill would have left it when the last checkpoint had been saved."""
    run = tmp_path / "run"
    shutil.copytree(expected, run)
    (run / "summary.json").unlink()
    return run


def test_a_damaged_last_checkpoint_falls_back_with_a_warning(command, tmp_path, uninterrupted):
    run = copy_of(uninterrupted, tmp_path)
    for name in ("last", "best", "iteration_0000400"):
        path = run / "checkpoints" / f"{name}.ckpt"
        path.write_bytes(path.read_bytes()[:-7])
    evaluated = command("bpc-eval", "checkpoint=run")
    assert evaluated.returncode == 0, evaluated.stderr
    assert "last.ckpt is missing or damaged: this is previous.ckpt" in evaluated.stdout
    done = command("bpc-train", *SMALL, "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    warning, resumed, *_ = done.stdout.splitlines()
    assert warning.startswith("WARNING: ") and "this is previous.ckpt, of iteration 390" in warning
    assert resumed.endswith("previous.ckpt after iteration 390")
    assert_same_run(run, uninterrupted)


def test_metrics_lines_after_the_checkpoint_are_cut_off(command, tmp_path, uninterrupted):
    run = copy_of(uninterrupted, tmp_path)
    for name in ("last", "best", "iteration_0000400"):
        (run / "checkpoints" / f"{name}.ckpt").unlink(missing_ok=True)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 401, "gen_l')
    assert command("bpc-train", *SMALL, "hydra.run.dir=run").returncode == 0
    assert_same_run(run, uninterrupted)


@pytest.mark.parametrize(
    "line",
    [
        *("[]", "5", "{}", "{", '{"iteration": "1", "test_accuracy": null}'),
        *('{"iteration": 1, "test_accuracy": 5.0}', "[" * 900 + "]" * 900),
        '{"iteration": 1, "seed": 0, "test_accuracy": NaN}',
        '{"iteration": 1, "seed": 0, "test_accuracy": null, "gen_loss": 1e999}',
        '{"iteration": 1, "seed": 0, "test_accuracy": "5.0"}',
    ],
)
def test_a_line_that_is_no_metrics_is_reported_as_damage(line, tmp_path):
    (tmp_path / "metrics.jsonl").write_text(f"{line}\n")
    with (
        RunDirectory(tmp_path, tmp_path / "metrics.jsonl", len(line) + 1) as run,
        pytest.raises(UserError, match=r"metrics\.jsonl is damaged: choose another"),
    ):
        run.read_metrics()


def lose_the_end(content: bytes) -> bytes:
    return content[:-300]


def change_a_number(content: bytes) -> bytes:
    return content.replace(b'"gen_loss": 0.4', b'"gen_loss": 0.3', 1)


def lose_a_seed(content: bytes) -> bytes:
    *before, last = content.splitlines(keepends=True)
    return b"".join(before) + last.replace(b'"seed"', b'"sead"')


def lose_a_loss(content: bytes) -> bytes:
    first, *others = content.splitlines(keepends=True)
    line = json.loads(first) | {"gen_loss": None}
    return json.dumps(line).encode() + b"\n" + b"".join(others) + b"\n" * 100


def put_nan(content: bytes) -> bytes:
    *before, last = content.splitlines(keepends=True)
    line = json.loads(last) | {"test_accuracy": float("nan")}
    return b"".join(before) + json.dumps(line).encode() + b"\n" + b"{}\n" * 100


DAMAGES = (lose_the_end, change_a_number, lose_a_seed, lose_a_loss, put_nan)


@pytest.mark.parametrize("is_finished", [True, False])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damaged_metrics_are_noticed_and_nothing_is_touched(
    damage, is_finished, command, tmp_path, uninterrupted
):
    run = copy_of(uninterrupted, tmp_path)
    if is_finished:
        shutil.copy(uninterrupted / "summary.json", run)
    metrics = run / "metrics.jsonl"
    damaged = damage(metrics.read_bytes())
    assert damaged != metrics.read_bytes()
    metrics.write_bytes(damaged)
    before = content_of(run)
    done = command("bpc-train", *SMALL, "n_train_iters=410", "hydra.run.dir=run")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    wrong = "lacks lines" if damage is lose_the_end else "is damaged in lines"
    assert f"metrics.jsonl {wrong} that were there when last.ckpt was saved" in done.stderr
    assert content_of(run) == before


def test_a_damaged_run_is_resumed_in_a_new_directory(command, tmp_path, uninterrupted):
    run = copy_of(uninterrupted, tmp_path)
    metrics = run / "metrics.jsonl"
    metrics.write_bytes(change_a_number(metrics.read_bytes()))
    words = (*SMALL, "n_train_iters=410", "resume=run", "hydra.run.dir=new")
    done = command("bpc-train", *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert "WARNING: run/metrics.jsonl is damaged in lines that were there when" in done.stdout
    assert [line["iteration"] for line in lines_of(tmp_path / "new")] == list(range(401, 411))


@pytest.mark.slow
def test_a_run_may_be_tested_and_logged_otherwise_when_it_goes_on(command, tmp_path):
    words = ("data=digits", "model.width=8", "hydra.run.dir=run")
    assert command("bpc-train", *words, "n_train_iters=20").returncode == 0
    more = ("n_train_iters=40", "test_every=10", "log_every=5", "checkpoint_every=7")
    done = command("bpc-train", *words, *more)
    assert done.returncode == 0, done.stderr
    assert [line["iteration"] for line in lines_of(tmp_path / "run")][19:] == [20, 25, 30, 35, 40]


@pytest.mark.slow
def test_a_schedule_over_the_run_fixes_its_length(command, tmp_path):
    schedule = ("optim.param_schedule=cosine_decay_schedule", "data=digits", "hydra.run.dir=run")
    assert command("bpc-train", *schedule, "n_train_iters=4").returncode == 0
    done = command("bpc-train", *schedule, "n_train_iters=8")
    assert done.returncode == 1
    assert "other options: n_train_iters (was 4, now 8)" in done.stderr


def test_going_on_from_before_the_best_forgets_it(command, tmp_path, uninterrupted):
    """An earlier checkpoint's run has another best than the run that it was taken from."""
    run = uninterrupted
    early = run / "checkpoints" / "iteration_0000100.ckpt"
    done = command("bpc-train", *SMALL, f"resume={early}", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    assert lines_of(tmp_path / "run") == lines_of(run)
    best, expected = (
        read_checkpoint(r / "checkpoints" / "best.ckpt") for r in (tmp_path / "run", run)
    )
    assert best.payload == expected.payload


def test_a_link_out_of_a_run_directory_is_refused(command, tmp_path, uninterrupted):
    run = copy_of(uninterrupted, tmp_path)
    precious = tmp_path / "precious"
    precious.write_bytes((run / "metrics.jsonl").read_bytes() * 2)
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").symlink_to(precious)
    before = precious.read_bytes()
    for overrides in (("hydra.run.dir=run",), ("resume=run", "n_train_iters=410")):
        done = command("bpc-train", *SMALL, *overrides)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert "metrics.jsonl is a link that leads out of its run directory" in done.stderr
    assert precious.read_bytes() == before


def assert_stopped_whole(done, run: Path, message: str) -> None:
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert message in done.stderr
    saved = read_checkpoint(run / "checkpoints" / "last.ckpt")
    lines = lines_of(run)
    assert [line["iteration"] for line in lines] == list(range(1, len(lines) + 1))
    assert len(lines) >= saved.header["iteration"] > 0
    assert not list(run.rglob("*.tmp"))


def test_a_full_disk_stops_a_run_with_one_line_and_it_goes_on(
    command, tmp_path, small_disk, uninterrupted
):
    # Checkpoints of 0.6 MB: the disk is full before the one of iteration 400 is kept.
    filler = small_disk / "filler"
    filler.write_bytes(bytes(800_000))
    done = command("bpc-train", *SMALL, "hydra.run.dir=disk/run")
    assert_stopped_whole(done, small_disk / "run", "No space left on device: ")
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=30m", str(small_disk)], check=True)
    done = command("bpc-train", *SMALL, "hydra.run.dir=disk/run")
    assert done.returncode == 0, done.stderr
    assert_same_run(small_disk / "run", uninterrupted)


@pytest.mark.slow
def test_a_limit_on_file_size_stops_a_run_with_one_line(environment, tmp_path):
    limited = ["bash", "-c", 'ulimit -f 215; exec "$0" "$@"', str(PROGRAM)]
    small = ("data=digits", "model.width=32", "n_train_iters=2000", "test_every=10")
    done = subprocess.run(
        [*limited, *small, "optim.param=sgd", "hydra.run.dir=run"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert_stopped_whole(done, tmp_path / "run", "File too large: ")


def test_a_directory_that_cannot_be_written_is_one_line(command, tmp_path, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    done = command("bpc-train", *SMALL, "hydra.run.dir=disk/run")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "Read-only file system: " in done.stderr


def test_a_directory_that_vanishes_stops_a_run_with_one_line(started, tmp_path):
    process = started("bpc-train", *LONG, "checkpoint_every=100", "hydra.run.dir=run")
    wait_until((tmp_path / "run" / "checkpoints" / "previous.ckpt").exists, process)
    (tmp_path / "run").rename(tmp_path / "moved")
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1
    assert len(stderr.splitlines()) == 1, stderr
    assert "No such file or directory: " in stderr
    assert read_checkpoint(tmp_path / "moved" / "checkpoints" / "last.ckpt")


def test_pictures_that_cannot_be_drawn_end_no_run(command, tmp_path):
    for picture in ("curves.png", "samples/iteration_0000010.png", "samples/iteration_0000020.png"):
        (tmp_path / "run" / picture).mkdir(parents=True)
    done = command(
        *("bpc-train", "data=digits", "model.width=32", "n_train_iters=20", "test_every=10"),
        "hydra.run.dir=run",
    )
    assert (done.returncode, done.stderr) == (0, "")
    warnings = [line for line in done.stdout.splitlines() if line.startswith("WARNING")]
    assert len(warnings) == 1
    assert "iteration_0000010.png could not be drawn" in warnings[0]
    assert status_of(tmp_path / "run") == "finished"
