"""Commands in odd surroundings: streams, machines, users and signals; never a traceback."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Done, environment_in, program_path

TINY = ("data=digits", "n_train_iters=2", "model.width=4", "n_seeds=2")  # "±" is printed of seeds
TRAIN = f"bpc-train {' '.join(TINY)} hydra.run.dir=run"
EVAL = "bpc-eval checkpoint=trained inference.n_steps=0 hydra.run.dir=eval"
REPORT = "bpc-report trained --output report"
ASCII = "PYTHONIOENCODING=ascii"
C_LOCALE = "LC_ALL=C PYTHONUTF8=0"
NO_NAME = "-u HOME -u BPC_CACHE_DIR setpriv --reuid 12345 --regid 12345 --clear-groups"


def slow(*case: object):
    return pytest.param(*case, marks=pytest.mark.slow)


def proof(*case: object):
    return pytest.param(*case, marks=pytest.mark.proof)


# A line for bash, its exit code, and what the error output must hold.
LINES = [
    slow(f"{TRAIN} >&-", 0, ""),
    proof(f"{TRAIN} 2>&-", 0, ""),
    proof(f"{TRAIN} <&- >&- 2>&-", 0, ""),
    (f"{TRAIN} >/dev/full", 0, "standard output cannot be written"),
    proof(f"{TRAIN} >/dev/full 2>&1", 0, ""),
    proof(f"{TRAIN} 2>/dev/full", 0, ""),
    proof(f"{TRAIN} n_train_iters=100 test_every=10 | head -1", 0, ""),
    slow(f"env {ASCII} {TRAIN}", 0, ""),
    proof(f"env {C_LOCALE} {TRAIN}", 0, ""),
    proof(f"env {ASCII} {TRAIN} -m hydra/launcher=joblib hydra.sweep.dir=s seed=0,2", 0, ""),
    proof(f"{TRAIN} -m hydra/launcher=joblib hydra.sweep.dir=s seed=0,2 | head -1", 0, ""),
    slow(f"{EVAL} >&-", 0, ""),
    proof(f"{EVAL} >/dev/full", 0, "standard output cannot be written"),
    slow(f"{EVAL} | head -1", 0, ""),
    proof(f"env {ASCII} {EVAL}", 0, ""),
    proof(f"{REPORT} >&-", 0, ""),
    proof(f"{REPORT} >/dev/full", 0, "standard output cannot be written"),
    proof(f"env {ASCII} {REPORT}", 0, ""),
    ("bpc-train --help | head -3", 0, ""),
    proof("bpc-train --info | head -3", 0, ""),
    proof("bpc-train --hydra-help | head -3", 0, ""),
    proof("bpc-eval --help | head -3", 0, ""),
    proof("bpc-report --help | head -1", 0, ""),
    proof(f"env {ASCII} bpc-train --help", 0, ""),
    slow("bpc-train --help >/dev/full", 1, "standard output cannot be written"),
    proof(f"{TRAIN} --cfg job >/dev/full", 1, "standard output cannot be written"),
    (f"env JAX_PLATFORMS=nonsense {TRAIN}", 1, "no device of JAX_PLATFORMS=nonsense"),
    proof(f"env JAX_PLATFORMS=rocm {TRAIN}", 1, "no device of JAX_PLATFORMS=rocm"),
    slow(f"env JAX_PLATFORMS=cuda {TRAIN}", 1, "no device of JAX_PLATFORMS=cuda"),
    proof(f"env JAX_PLATFORMS=cuda {EVAL}", 1, "no device of JAX_PLATFORMS=cuda"),
    slow(f"env {NO_NAME} {TRAIN}", 0, ""),
    proof(f"env {NO_NAME} {EVAL}", 0, ""),
    proof(f"env {NO_NAME} {REPORT}", 0, ""),
    proof(f"{TRAIN} 'resume=\"~nobodyknows/run\"'", 1, "no such user's home is known"),
    slow(f"ulimit -v 600000; {TRAIN}", 1, "memory"),
    proof(f"ulimit -v 300000; {TRAIN}", 1, "memory"),
    proof(f"ulimit -v 600000; {EVAL}", 1, "memory"),
    slow(f"mkdir run; mkfifo run/train.log; {TRAIN}", 1, "neither a file nor a folder"),
    proof(f"mkdir -p run/.hydra; mkfifo run/.hydra/config.yaml; {TRAIN}", 1, "neither a file"),
    proof(f"mkfifo pipe; {TRAIN} resume=pipe", 1, "pipe"),
    proof(f"mkfifo pipe; {EVAL} checkpoint=pipe", 1, "pipe"),
    proof(f"mkdir -p eval/.hydra; mkfifo eval/.hydra/config.yaml; {EVAL}", 0, ""),
]


@pytest.fixture(scope="session")
def trained(made_once, server) -> Path:
    def train(folder: Path) -> None:
        folder.mkdir()
        words = ("bpc-train", *TINY, f"hydra.run.dir={folder}/run")
        done = server.run(words, folder, environment_in(folder))
        assert done.returncode == 0, done.stderr

    return made_once("environments", train) / "run"


@pytest.fixture
def place(trained) -> Iterator[Path]:
    """A directory that everybody may write to, with a trained run."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        shutil.copytree(trained, Path(folder) / "trained")
        yield Path(folder)


@pytest.fixture(scope="session")
def nameless_users_may_run() -> bool:
    """Whether tests can become a user without a name, and that user can start Python."""
    try:
        return subprocess.run(["env", *NO_NAME.split(), sys.executable, "-c", ""]).returncode == 0
    except OSError:
        return False


def run_line(line: str, place: Path, environment: dict[str, str]) -> Done:
    commands = str(Path(program_path("bpc-train")).parent)
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        cwd=place,
        env=environment | {"PATH": f"{commands}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def assert_ended_in_words(code: int | None, output: str, errors: str) -> None:
    """Check that whatever a command said, it is no traceback, and few lines of errors."""
    for sign in ("Traceback", "Exception ignored", "KeyboardInterrupt"):
        assert sign not in output + errors, f"exit code {code}:\n{errors}"
    assert len(errors.splitlines()) <= 3, errors


@pytest.mark.parametrize(("line", "code", "message"), LINES)
def test_no_surroundings_end_a_command_in_a_traceback(
    line, code, message, place, environment, nameless_users_may_run
):
    if NO_NAME in line and not nameless_users_may_run:
        pytest.skip("nobody without a name can run Python here")
    if "cuda" in line and shutil.which("nvidia-smi"):
        pytest.skip("here is a GPU")
    done = run_line(line, place, environment)
    assert_ended_in_words(done.returncode, done.stdout, done.stderr)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    if code == 0 and TRAIN in line and " -m " not in line:
        assert (place / "run" / "summary.json").read_text().count('"finished"') == 1
        assert "everything is in run" in (place / "run" / "train.log").read_text(encoding="utf-8")
    if "ascii" in line and " -m " not in line and "head" not in line:
        assert done.stdout and done.stdout.isascii()


def maps_of(process: subprocess.Popen[str]) -> str:
    """Name the files that a process has mapped into its memory, libraries among them."""
    try:
        return Path(f"/proc/{process.pid}/maps").read_text()
    except OSError:
        return ""


WORK = f"{EVAL} inference.n_steps=1000000 diagnostics=[all]"


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    ("line", "library", "seconds"),
    [
        (TRAIN, "_yaml", 0),  # while the command line is being understood
        proof(TRAIN, "libjax_common", 0),  # while JAX is imported
        slow(TRAIN, "libjax_common", 0.3),
        proof(EVAL, "_yaml", 0),
        slow(EVAL, "libjax_common", 0),
        proof(WORK, "libjax_common", 1),
        slow(WORK, "libjax_common", 2),
        (WORK, "libjax_common", 4),  # in compiled code that takes hours
        proof(WORK, "libjax_common", 8),
        proof(REPORT, "ft2font", 0),  # while Matplotlib is imported
    ],
)
def test_ctrl_c_ends_a_command_at_any_moment(line, library, seconds, place, environment):
    program, *words = line.split()
    process = subprocess.Popen(
        [program_path(program), *words],
        cwd=place,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until = time.monotonic() + 100
        while library not in maps_of(process) and time.monotonic() < until:
            time.sleep(0.005)
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert_ended_in_words(process.returncode, output, errors)
    assert process.returncode == 130, (output, errors)
    assert "interrupted" in errors
    assert os.listdir(place) == ["trained"]


DAMAGE = (b"", b"cut", zlib.compress(b"\0\0\0\0no program"), zlib.compress(b""))


@pytest.mark.slow
def test_damaged_compiled_programs_are_replaced_with_one_line(own_process, tmp_path):
    def train(name: str) -> Done:
        words = ("bpc-train", *TINY, "n_seeds=1", f"hydra.run.dir={name}")
        done = own_process(*words, BPC_CACHE_DIR="cache")
        assert done.returncode == 0, done.stderr
        return done

    first = train("first")
    entries = sorted((tmp_path / "cache").rglob("*-cache"))
    assert len(entries) > len(DAMAGE)
    sizes = [entry.stat().st_size for entry in entries]
    for number, entry in enumerate(entries[:-1]):
        entry.write_bytes(DAMAGE[number % len(DAMAGE)])
    repaired = train("repaired")
    assert repaired.stderr.count("\n") == 1
    assert "had damaged programs: they are compiled and kept anew" in repaired.stderr
    assert sorted((tmp_path / "cache").rglob("*-cache")) == entries
    for entry, size in zip(entries, sizes, strict=True):
        assert abs(entry.stat().st_size - size) < 0.1 * size
    again = train("again")
    assert again.stderr == ""
    assert first.stdout.splitlines()[0] == again.stdout.splitlines()[0]


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_is_said_in_one_line(own_process, tmp_path, small_disk):
    words = ("bpc-train", *TINY, "hydra.run.dir=run")
    subprocess.run(["mount", "-o", "remount,size=20k", str(small_disk)], check=True)
    done = own_process(*words, BPC_CACHE_DIR=str(small_disk))
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1
    assert "programs cannot be kept in" in done.stderr and "No space left" in done.stderr
    for entry in small_disk.rglob("*-cache"):
        zlib.decompress(entry.read_bytes())


TOO_MANY = "1" + "0" * 18


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("inference.n_steps=99999999999", "inference.n_steps must be at most 1000000"),
        (f"inference.n_steps={TOO_MANY}", "inference.n_steps must be at most 1000000"),
        ("model.width=99999999999", "reduce one of them"),
        (f"model.width={TOO_MANY}", "reduce one of them"),
        (f"model.depth={TOO_MANY}", "model.depth must be at most"),
        (f"n_seeds={TOO_MANY}", "seed + n_seeds must be at most"),
        ("n_seeds=4294967295", "reduce one of them"),
        (f"batch_size={TOO_MANY}", "batch_size must be at most"),
        ("n_epochs=99999999999", "iterations are wanted: at most"),
        (f"n_train_iters={TOO_MANY}", "iterations are wanted: at most"),
        (f"data.n_train={TOO_MANY}", "more than the 1437 training images"),
        (f"data.n_validation={TOO_MANY}", "more than the 1437 training images"),
    ],
)
def test_more_than_can_be_done_is_refused_in_one_line(option, message, command, tmp_path):
    done = command("bpc-train", "data=digits", "model.width=8", option)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert message in done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("option", ["test_every", "log_every", "keep_every"])
def test_distances_may_be_longer_than_a_run(option, command):
    done = command("bpc-train", *TINY, f"{option}={TOO_MANY}")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("option", ["inference.n_steps", "diagnosis.image", "diagnosis.n_images"])
def test_numbers_beyond_what_can_be_evaluated_are_refused(option, command, trained):
    words = ("bpc-eval", f"checkpoint={trained}", "diagnostics=[hessian]", "inference.n_steps=1")
    done = command(*words, f"{option}={TOO_MANY}")
    assert "Traceback" not in done.stderr
    assert (done.returncode, done.stderr.count("\n")) in ((1, 1), (0, 0)), done.stderr


@pytest.mark.parametrize("program", ["bpc-train", "bpc-eval"])
def test_names_and_explanations_in_help_are_apart(program, command):
    for columns in (80, 60, 200):  # 80 where there is no terminal
        more = {} if columns == 80 else {"COLUMNS": str(columns)}
        lines = command(program, "--help", **more).stdout.splitlines()
        assert min(columns, 100) - 10 < max(map(len, lines)) <= min(columns, 100)
        named = lines[lines.index("Data") : lines.index("Sweep")]
        entries = [line for line in named if line.startswith("  ") and line[2] != " "]
        assert len(entries) > 15
        assert all(re.match(r"  [\w.]+(=[A-Z]+)?(  +\S|$)", entry) for entry in entries)
