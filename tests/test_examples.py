"""The README's training examples, run to their ends: each reaches the accuracy that it claims."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from conftest import archives_of, environment_in, program_path

from bpc_cli.data.datasets import load_dataset

README = (Path(__file__).parents[1] / "README.md").read_text().replace("\\\n", " ")
CLAIMS = dict(re.findall(r"^\$ (bpc-train .*?) +# (\d+\.\d) %", README, re.MULTILINE))
ROUNDING = 2.5  # points, by which other versions and processors may be off


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A working directory, and the environment of a user whose data are prepared."""
    folder = tmp_path_factory.mktemp("examples")
    for name in ("mnist", "fashion_mnist"):
        load_dataset(name, data_dir=folder / "data", archive_dir=str(archives_of(name)))
    environment = environment_in(folder) | {"TFDS_DATA_DIR": str(folder / "data")}
    return folder, {name: value for name, value in environment.items() if name != "JAX_PLATFORMS"}


def test_the_readme_claims_what_its_examples_reach():
    assert len(CLAIMS) >= 7


@pytest.mark.slow
@pytest.mark.parametrize("example", CLAIMS)
def test_a_training_example_reaches_its_accuracy(example, prepared):
    folder, environment = prepared
    done = subprocess.run(
        [program_path("bpc-train"), *shlex.split(example)[1:]],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "WARNING" not in done.stdout
    reached = float(re.findall(r"test accuracy (\d+\.\d+)", done.stdout)[-1])
    assert abs(reached - float(CLAIMS[example])) < ROUNDING
