"""Checkpoints that a stranger made: each is used or rejected in one line, at little cost."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import environment_in, program_path
from hostile_checkpoints import CASES
from try_hostile_checkpoints import TRAINING
from try_hostile_checkpoints import __file__ as SCRIPT

MOST_IN_A_PROCESS = 40  # compiled programs stay in it, and count as memory
# Each of another kind, or once taken for something else; the others are proofs.
CHOSEN = (
    *("metrics_bytes: negative", "seconds: nan", "config.model.width: huge"),
    *("config.optim.param_args.a changed", "config.inference.forward_layer_weights: many"),
    *("sparse", "sparse and consistent", "FIFO", "link to itself", "iteration changed"),
)


@pytest.fixture(scope="session")
def small(made_once) -> Path:
    """A small run of ten iterations, finished."""

    def make(run: Path) -> None:
        words = [program_path("bpc-train"), *TRAINING, f"hydra.run.dir={run}"]
        subprocess.run(words, env=environment_in(run), check=True, timeout=300)

    return made_once("small", make)


@pytest.fixture(scope="session")
def results(made_once, small) -> dict[bool, dict]:
    """What became of each hostile checkpoint: of those chosen, and once asked for of the others."""

    class Results(dict):
        def __missing__(self, is_chosen: bool) -> dict:
            names = [name for name in CASES if (name in CHOSEN) == is_chosen]

            def try_them(folder: Path) -> None:
                folder.mkdir()
                for first in range(0, len(names), MOST_IN_A_PROCESS):
                    some = names[first : first + MOST_IN_A_PROCESS]
                    subprocess.run(
                        [sys.executable, SCRIPT, str(small), f"{first}.json", *some],
                        cwd=folder,
                        env=environment_in(folder),
                        check=True,
                        timeout=1200,
                    )

            self[is_chosen] = {}
            for file in made_once(f"hostile-{is_chosen}", try_them).glob("*.json"):
                self[is_chosen] |= json.loads(file.read_text())
            return self[is_chosen]

    return Results()


def test_there_are_enough_cases():
    assert set(CHOSEN) <= CASES.keys()
    assert len(CASES) >= 120


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in CHOSEN else pytest.mark.proof)
        for name in CASES
    ],
)
def test_a_hostile_checkpoint_is_used_or_rejected_in_one_line(name, results):
    for done in results[name in CHOSEN][name].values():
        lines = done["err"].splitlines()
        assert (done["code"], len(lines)) in ((0, 0), (1, 1)), done["err"]
        assert all(len(line) < 1_000 for line in lines)
        assert done["seconds"] < 60
        assert done["bytes"] < 2**30


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sparse and consistent", "metrics_bytes: negative"])
def test_previous_stands_in_for_a_last_checkpoint_that_lies(name, results):
    done = results[True][name]["resumed"]
    assert done["code"] == 0
    warning, resumed, *_ = done["out"].splitlines()
    assert "last.ckpt is missing or damaged: this is previous.ckpt, of iteration 10" in warning
    assert resumed.endswith("previous.ckpt after iteration 10")
