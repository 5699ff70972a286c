"""What several test files need: the real commands, the archives, float64."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

SHARED_MNIST = Path(__file__).parents[2] / "shared" / "mnist"


@pytest.fixture
def mnist_archives() -> Path:
    """The folder with MNIST's four original archives, which users do not have."""
    if not SHARED_MNIST.is_dir():
        pytest.skip("the MNIST archives are not beside this checkout (../shared/mnist)")
    return SHARED_MNIST


@pytest.fixture
def float64():
    """Double precision, as the reference figures have."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def command(tmp_path, tmp_path_factory):
    """Run a command of ours in an empty directory, with no data prepared and no archives given."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        inherited = {k: v for k, v in os.environ.items() if k != "BPC_MNIST_ARCHIVES"}
        data = {
            "TFDS_DATA_DIR": str(tmp_path / "no-data"),
            "BPC_CACHE_DIR": str(tmp_path_factory.getbasetemp().parent / "bpc-cache"),
            "JAX_PLATFORMS": "cpu",
        }
        program, *rest = arguments
        return subprocess.run(
            [str(Path(sys.executable).with_name(program)), *rest],
            cwd=tmp_path,
            env=inherited | data | environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run
