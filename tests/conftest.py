"""What several test files need: the real commands, the archives, float64."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

SHARED_MNIST = Path(__file__).parents[2] / "shared" / "mnist"


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=5, help="how many runs are killed and resumed")
    parser.addoption("--lines", type=int, default=80, help="how many command lines are tried")


def pytest_generate_tests(metafunc):
    if "kill" in metafunc.fixturenames:
        metafunc.parametrize("kill", range(metafunc.config.getoption("--kills")))


@pytest.fixture
def n_lines(request) -> int:
    """How many command lines of a kind the slow tests try."""
    return request.config.getoption("--lines")


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


def environment_in(directory: Path, tmp_path_factory) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if k != "BPC_MNIST_ARCHIVES"}
    return inherited | {
        "TFDS_DATA_DIR": str(directory / "no-data"),
        "BPC_CACHE_DIR": str(tmp_path_factory.getbasetemp().parent / "bpc-cache"),
        "JAX_PLATFORMS": "cpu",
    }


@pytest.fixture
def environment(tmp_path, tmp_path_factory) -> dict[str, str]:
    """An environment with no data prepared, no archives given, and a cache that tests share."""
    return environment_in(tmp_path, tmp_path_factory)


@pytest.fixture
def command(tmp_path, environment):
    """Run a command of ours in an empty directory."""

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        program, *rest = arguments
        return subprocess.run(
            [str(Path(sys.executable).with_name(program)), *rest],
            cwd=tmp_path,
            env=environment | more,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture
def started(tmp_path, environment):
    """Start a command of ours in an empty directory, and kill it if the test leaves it running."""
    processes = []

    def start(*arguments: str, **options) -> subprocess.Popen[str]:
        program, *rest = arguments
        processes.append(
            subprocess.Popen(
                [str(Path(sys.executable).with_name(program)), *rest],
                cwd=tmp_path,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                **options,
            )
        )
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


SERVER = """
import contextlib, io, json, os, sys
from bpc_cli.train import main
requests, answers = sys.stdin, sys.stdout
for request in requests:
    sys.argv = ["bpc-train", *json.loads(request)]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as error:
            code = error.code
    os.environ.pop("HYDRA_FULL_ERROR", None)  # which a command sets for itself
    print(json.dumps([code, out.getvalue(), err.getvalue()]), file=answers, flush=True)
"""


@pytest.fixture(scope="module")
def bpc_train(tmp_path_factory):
    """Run `bpc-train` again and again in one process, in an empty directory.

    The function returns exit code, output, error output, and what is left in the directory.
    """
    directory = tmp_path_factory.mktemp("bpc-train")
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        cwd=directory,
        env=environment_in(directory, tmp_path_factory),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def run(*arguments: str) -> tuple[int, str, str, list[str]]:
        print(json.dumps(arguments), file=process.stdin, flush=True)
        return *json.loads(process.stdout.readline()), os.listdir(directory)

    yield run
    process.communicate(timeout=60)
    assert process.returncode == 0
