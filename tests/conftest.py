"""What several test files need: the real commands, runs to share, the archives, float64."""

import contextlib
import fcntl
import functools
import importlib
import json
import logging
import os
import select
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import pytest
from prepared_data import prepare_fashion_mnist, prepare_few_images, prepare_mnist

SHARED = Path(__file__).parents[2] / "shared"
COMMANDS = {
    "bpc-train": "bpc_cli.train",
    "bpc-eval": "bpc_cli.evaluate",
    "bpc-report": "bpc_cli.report",
}
Done = subprocess.CompletedProcess[str]


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=1, help="how many runs are killed and resumed")
    parser.addoption("--lines", type=int, default=80, help="how many command lines are tried")


def pytest_configure(config):
    """Keep compiled programs from one time to the next, which take most of a test's time.

    So do the commands that tests run; JAX itself notices when a program has changed.
    """
    # Most of a test's time is compiling small programs. Commands are compiled as users have them.
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")
    os.environ["BPC_CACHE_DIR"] = str(config.rootpath / ".pytest_cache" / "d" / "bpc")
    # Not by `configure_jax`: shape annotations are checked in what is imported after this.
    jax.config.update("jax_compilation_cache_dir", os.environ["BPC_CACHE_DIR"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def pytest_generate_tests(metafunc):
    if "kill" in metafunc.fixturenames:
        metafunc.parametrize("kill", range(metafunc.config.getoption("--kills")))


@pytest.fixture
def n_lines(request) -> int:
    """How many command lines of a kind the slow tests try."""
    return request.config.getoption("--lines")


def archives_of(name: str) -> Path:
    """The folder with a data set's four original archives, which users do not have."""
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"the archives of {name} are not beside this checkout (../shared/{name})")
    return folder


@pytest.fixture
def mnist_archives() -> Path:
    """The folder with MNIST's four original archives."""
    return archives_of("mnist")


@pytest.fixture
def float64():
    """Double precision, as the reference figures have."""
    with jax.enable_x64(True):
        yield


def environment_in(directory: Path) -> dict[str, str]:
    inherited = {
        k: v for k, v in os.environ.items() if k not in ("BPC_MNIST_ARCHIVES", "XLA_FLAGS")
    }
    return inherited | {"TFDS_DATA_DIR": str(directory / "no-data"), "JAX_PLATFORMS": "cpu"}


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    """An environment with no data prepared, no archives given, and a cache that tests share."""
    return environment_in(tmp_path)


def program_path(program: str) -> str:
    """Where the script of a command of ours is."""
    return str(Path(sys.executable).with_name(program))


@pytest.fixture
def own_process(tmp_path, environment):
    """Run a command of ours in an empty directory, in a process of its own."""

    def run(program: str, *arguments: str, **more: str) -> Done:
        return subprocess.run(
            [program_path(program), *arguments],
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
                [program_path(program), *rest],
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


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB, mounted where tests run."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def serve() -> None:
    """Run commands one after another: a request is a line of JSON, and so is its answer."""
    answers = os.fdopen(os.dup(1), "w")
    home = os.getcwd()
    for program in COMMANDS.values():
        importlib.import_module(program)
    for request in sys.stdin:
        arguments, directory, environment = json.loads(request)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(directory)
        with captured() as outputs:
            code = exit_code_of(*arguments)
        os.chdir(home)
        print(json.dumps([code, *outputs]), file=answers, flush=True)


@contextlib.contextmanager
def captured() -> Iterator[list[str]]:
    """Collect what a `with` block writes to both outputs, by whatever way it writes."""
    outputs: list[str] = []
    kept = [os.dup(1), os.dup(2)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        try:
            yield outputs
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, descriptor in enumerate(kept, 1):
                os.dup2(descriptor, number)
                os.close(descriptor)
            for file in (out, err):
                file.seek(0)
                outputs.append(file.read().decode())


def exit_code_of(program: str, *arguments: str) -> int:
    """Run a command in this process, and leave nothing of it behind but what is compiled."""
    sys.argv = [program_path(program), *arguments]
    try:
        importlib.import_module(COMMANDS[program]).main()
    except SystemExit as error:
        return error.code or 0
    except Exception:
        traceback.print_exc()
        return 1
    finally:
        logging.shutdown()
        logging.root.handlers.clear()  # they would keep a run's log open
    return 0


class Server:
    """A process that runs our commands one after another, in place of a process for each.

    A start of Python and JAX takes longer than most commands do, and compiled functions are kept.

    Args:
        environment: the environment that it starts in.
    """

    def __init__(self, environment: dict[str, str]):
        self._environment = environment | {"PYTHONPATH": str(Path(__file__).parent)}
        self._process: subprocess.Popen[str] | None = None

    def run(self, arguments: tuple[str, ...], cwd: Path, environment: dict[str, str]) -> Done:
        """Run a command as `subprocess.run` would; fail if that takes the server with it."""
        if self._process is None or self._process.poll() is not None:
            self._process = self._started()
        print(json.dumps([arguments, str(cwd), environment]), file=self._process.stdin, flush=True)
        ready, _, _ = select.select([self._process.stdout], [], [], 300)
        answer = self._process.stdout.readline() if ready else ""
        if not answer:
            self.close(kill=True)
            ending = "ended the server" if ready else "took longer than 300 s"
            pytest.fail(f"{' '.join(arguments)} {ending}")
        return Done(arguments, *json.loads(answer))

    def close(self, kill: bool = False) -> None:
        """End the process; the next command starts another."""
        if self._process is not None:
            if kill:
                self._process.kill()
            self._process.communicate(timeout=60)
            self._process = None

    def _started(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-P", "-c", "import conftest; conftest.serve()"],
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for pytest, and its end is the server's
        )


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[Server]:
    """The process that runs most commands of this worker's tests."""
    server = Server(environment_in(tmp_path_factory.mktemp("server")))
    yield server
    server.close()


@pytest.fixture
def command(tmp_path, environment, server):
    """Run a command of ours in an empty directory."""

    def run(*arguments: str, **more: str) -> Done:
        return server.run(arguments, tmp_path, environment | more)

    return run


@pytest.fixture(scope="session")
def bpc_train(server, tmp_path_factory):
    """Run `bpc-train` in an empty directory, for fixtures that serve several tests.

    The function returns exit code, output, error output, and what is left in the directory.
    """

    def run(*arguments: str) -> tuple[int, str, str, list[str]]:
        directory = tmp_path_factory.mktemp("bpc-train")
        environment = environment_in(directory)
        done = server.run(("bpc-train", *arguments), directory, environment)
        return done.returncode, done.stdout, done.stderr, os.listdir(directory)

    return run


@pytest.fixture(scope="session")
def few_images(made_once) -> Path:
    """A data directory in which TFDS has prepared `mnist` and `own/big`, of few random images each.

    To be copied by tests that change it.
    """
    return made_once("few-images", prepare_few_images)


@pytest.fixture(scope="session")
def mnist_data(made_once) -> Path:
    """A data directory with MNIST, to be copied by tests that change it; `said.json` beside it."""
    return made_once("mnist", functools.partial(prepare_mnist, archives_of("mnist"))) / "data"


@pytest.fixture(scope="session")
def fashion_mnist_data(made_once) -> Path:
    """A data directory with Fashion-MNIST, of archives that were packed again."""
    prepare = functools.partial(prepare_fashion_mnist, archives_of("fashion_mnist"))
    return made_once("fashion-mnist", prepare) / "data"


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable[[str, Callable[[Path], None]], Path]:
    """Let whichever of pytest's processes comes first make a folder, for tests of all to read."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # that of all workers

    def folder_of(name: str, make: Callable[[Path], None]) -> Path:
        folder = shared / f"made-{name}"
        with (shared / f"made-{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                making = shared / f"making-{name}"
                shutil.rmtree(making, ignore_errors=True)
                make(making)
                making.rename(folder)
        return folder

    return folder_of
