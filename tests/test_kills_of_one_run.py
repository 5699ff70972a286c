"""Runs killed at a rename: whatever had its name by then, the run continues as if undisturbed."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import environment_in
from run_files import assert_same_run

from bpc_cli.runs.checkpoints.checkpoint import read_checkpoint

KILL_AT_RENAME = Path(__file__).with_name("kill_at_rename.py")
PROGRAM = Path(sys.executable).with_name("bpc-train")
# Its best test point is not its last.
SMALL = ("data=digits", "model.width=16", "test_every=5", "save_samples=true")
LONGER = (*SMALL, "n_train_iters=23")
SINGLE_RENAMES, RESUMING_RENAMES = 13, 6


@pytest.fixture(scope="session")
def short(made_once) -> Path:
    """A run of 20 iterations, for others to resume; the best of its test points is at 15."""
    return made_once("short", lambda run: train(run, *SMALL, "n_train_iters=20"))


@pytest.fixture(scope="session")
def longer(made_once) -> Path:
    """A run of 23 iterations that nothing has disturbed."""
    return made_once("longer", lambda run: train(run, *LONGER))


@pytest.fixture(scope="session")
def resumed(made_once, short) -> Path:
    """The short run, resumed in a directory of its own, which nothing has disturbed."""
    return made_once("resumed", lambda run: train(run, *LONGER, f"resume={short}"))


def train(run: Path, *arguments: str) -> None:
    run.mkdir()
    words = [PROGRAM, *arguments, f"hydra.run.dir={run}"]
    subprocess.run(words, env=environment_in(run), cwd=run, check=True, timeout=300)


@pytest.fixture
def kill_at_rename(tmp_path, environment):
    """Run a command that kills itself at a rename; tell whether it came so far."""

    def run(number: int, moment: str, *arguments: str) -> bool:
        words = [sys.executable, str(KILL_AT_RENAME), str(number), moment, *arguments]
        done = subprocess.run(
            words,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        return done.returncode != 0

    return run


def each_rename(count: int, chosen: tuple[int, ...]) -> list:
    """Every rename of a command, before and after; most are proofs."""
    return [
        pytest.param(
            number, moment, marks=pytest.mark.slow if number in chosen else pytest.mark.proof
        )
        for number in range(1, count + 1)
        for moment in ("before", "after")
    ]


@pytest.mark.parametrize(("number", "moment"), each_rename(SINGLE_RENAMES, chosen=(2,)))
def test_a_run_killed_at_a_rename(number, moment, kill_at_rename, command, tmp_path, longer):
    assert kill_at_rename(number, moment, "train", *LONGER, "hydra.run.dir=run")
    done = command("bpc-train", *LONGER, "hydra.run.dir=run")
    assert (done.returncode, done.stderr) == (0, "")
    assert_same_run(tmp_path / "run", longer)


@pytest.mark.parametrize("again", ["the same command", "without resume="])
@pytest.mark.parametrize(("number", "moment"), each_rename(RESUMING_RENAMES, chosen=(2,)))
def test_a_run_killed_while_it_resumes_another(
    number, moment, again, kill_at_rename, command, tmp_path, short, resumed
):
    words = (*LONGER, f"resume={short}", "hydra.run.dir=run")
    assert kill_at_rename(number, moment, "train", *words)
    is_its_own = (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()
    if again == "without resume=" and is_its_own:
        words = tuple(word for word in words if not word.startswith("resume="))
    done = command("bpc-train", *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert "WARNING" not in done.stdout
    assert_same_run(tmp_path / "run", resumed)


@pytest.mark.proof
def test_a_short_run_renames_as_often_as_is_tried(kill_at_rename, short):
    assert not kill_at_rename(SINGLE_RENAMES + 1, "before", "train", *LONGER, "hydra.run.dir=run")
    words = (*LONGER, f"resume={short}", "hydra.run.dir=resumed")
    assert not kill_at_rename(RESUMING_RENAMES + 1, "before", "train", *words)


@pytest.mark.slow
def test_a_best_checkpoint_that_is_lost_is_reported(command, tmp_path, short):
    best = tmp_path / "run" / "checkpoints" / "best.ckpt"
    shutil.copytree(short, tmp_path / "run")
    best.write_bytes(b"bpc-checkpoint")
    done = command("bpc-train", *LONGER, "hydra.run.dir=run")
    assert (done.returncode, done.stderr) == (0, "")
    lost = "the checkpoint of iteration 15, the best so far, is lost"
    assert f"WARNING: {lost}: iteration 20 has taken its place" in done.stdout
    assert read_checkpoint(best).header["iteration"] == 23
