"""The training examples of README and docs, run to their ends: each reaches what it claims."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from conftest import environment_in, program_path

PROJECT = Path(__file__).parents[1]
TEXTS = [PROJECT / "README.md", *sorted(PROJECT.glob("docs/**/*.md"))]
ROUNDING = 2.5  # points, by which other versions and processors may be off


def list_claims(block: str) -> dict[str, float]:
    """Find the commands of a block whose comments claim an accuracy, in their order."""
    lines = block.replace("\\\n", " ")
    found = re.findall(r"^\$ (bpc-train .*?) +# (\d+\.\d) %", lines, re.MULTILINE)
    return {command: float(accuracy) for command, accuracy in found}


BLOCKS = {
    f"{text.name}, line {text.read_text()[: block.start()].count(chr(10)) + 1}": claims
    for text in TEXTS
    for block in re.finditer(r"^```console\n(.*?)^```", text.read_text(), re.DOTALL | re.MULTILINE)
    if (claims := list_claims(block[1]))
}


def test_at_least_eight_examples_claim_what_they_reach():
    assert sum(len(claims) for claims in BLOCKS.values()) >= 8


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS)
def test_training_examples_reach_their_accuracies(block, tmp_path, mnist_data, fashion_mnist_data):
    data = tmp_path / "data"
    data.mkdir()
    (data / "bpc_packed").mkdir()
    for prepared in (mnist_data, fashion_mnist_data):
        (name,) = (prepared / "bpc_packed").iterdir()
        (data / "bpc_packed" / name.name).symlink_to(name)
    environment = environment_in(tmp_path) | {"TFDS_DATA_DIR": str(data)}
    for command, claimed in BLOCKS[block].items():
        done = subprocess.run(
            [program_path("bpc-train"), *shlex.split(command)[1:]],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "WARNING" not in done.stdout
        reached = float(re.findall(r"test accuracy (\d+\.\d+)", done.stdout)[-1])
        assert abs(reached - claimed) < ROUNDING, command
