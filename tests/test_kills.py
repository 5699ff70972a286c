"""Commands killed at a rename, as they write: given again, they end as if undisturbed."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import environment_in, program_path
from pictures import SIZE, write_folder
from run_files import assert_same_run

KILLER = Path(__file__).with_name("kill_at_rename.py")
SMALL = ("data=digits", "model.width=16", "n_train_iters=12", "test_every=6", "checkpoint_every=4")
SWEEP = ("-m", *SMALL, "hydra.sweep.dir=out")
PHOTOS = (
    *("data=image_folder", "data.dir=photos", f"data.image_size={SIZE}", "batch_size=4"),
    *("data.flip=true", "data.crop=2", "data.mean=[0.4,0.5,0.6]"),
)
JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
N_PLACES = 10


class Case(NamedTuple):
    """A command that is killed.

    Attributes:
        arguments: its own.
        n_renames: how many renames it comes to: of each checkpoint under each of its names, and of
            the summary.
        runs: the run directories that it leaves.
    """

    arguments: tuple[str, ...]
    n_renames: int
    runs: tuple[str, ...] = ("out",)

    def place(self, number: int) -> tuple[str, str]:
        """Choose a rename, and whether to kill before or after it; they are spread evenly."""
        n_done = (2 * number + 1) * self.n_renames // (2 * N_PLACES)
        return (str(n_done), "after") if number % 2 else (str(n_done + 1), "before")


CASES = {
    # Four jobs that are checkpointed in turn: nearly every kill leaves them uneven.
    "vmap": Case(
        (*SWEEP, "forward_energy_weight=1,0.1,0.01,1e-3", "hydra/launcher=vmap"),
        40,
        ("out/0", "out/1", "out/2", "out/3"),
    ),
    "resume": Case((*SMALL, "resume=first", "hydra.run.dir=out"), 9),
    "photos": Case((*SMALL[1:], *PHOTOS, "hydra.run.dir=out"), 10),
    "single": Case((*SMALL, "hydra.run.dir=out"), 10),
    "seeds": Case((*SMALL, "n_seeds=3", "hydra.run.dir=out"), 10),
    "basic": Case((*SWEEP, "seed=0,1"), 19, ("out/0", "out/1")),
    "joblib": Case((*SWEEP, "seed=0,1", *JOBLIB), 19, ("out/0", "out/1")),
}


def train(directory: Path, *arguments: str) -> None:
    """Train in a process of its own: workers' processes are the command's."""
    subprocess.run(
        [program_path("bpc-train"), *arguments],
        cwd=directory,
        env=environment_in(directory),
        stdout=subprocess.DEVNULL,
        check=True,
        timeout=300,
    )


@pytest.fixture
def undisturbed(made_once) -> Callable[[str], Path]:
    """Run a case's command in a directory that nothing has disturbed."""

    def of_case(name: str) -> Path:
        def make(directory: Path) -> None:
            directory.mkdir()
            if name == "photos":
                write_folder(directory / "photos")
            if name == "resume":
                train(directory, *SMALL, "n_train_iters=6", "hydra.run.dir=first")
            train(directory, *CASES[name].arguments)

        return made_once(f"undisturbed-{name}", make)

    return of_case


def test_a_command_killed_at_a_rename_goes_on_as_if_it_had_not_been(
    kill, undisturbed, command, own_process, environment, tmp_path
):
    name, case = list(CASES.items())[kill % len(CASES)]
    if name == "joblib":
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="the extra sweep")
    expected = undisturbed(name)
    if name == "resume":
        (tmp_path / "first").symlink_to(expected / "first")
    if name == "photos":
        write_folder(tmp_path / "photos")
    place = case.place((kill // len(CASES) + N_PLACES // 2) % N_PLACES)
    killed = subprocess.run(
        [sys.executable, KILLER, *place, "train", *case.arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        timeout=300,
    )
    assert killed.returncode == -signal.SIGKILL
    run = own_process if name == "joblib" else command
    again = run("bpc-train", *case.arguments)
    assert again.returncode == 0, (place, again.stderr)
    for run in case.runs:
        assert_same_run(tmp_path / run, expected / run)
