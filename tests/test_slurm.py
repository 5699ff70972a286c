"""Sweeps on a real Slurm: the one that `sinfo` finds, or one of a single node, started for this."""

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import SHARED
from run_files import lines_of, status_of, summary_of

pytest.importorskip("submitit", reason="the extra sweep")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("slurm")]

ONE_NODE = SHARED / "slurm" / "one-node"
SMALL = ("data=digits", "model.width=16", "hydra/launcher=submitit_slurm", "hydra.sweep.dir=s")
SMALL = ("bpc-train", "-m", *SMALL, "hydra.launcher.cpus_per_task=1")
ENDLESS = (*SMALL, "n_train_iters=100000000", "test_every=1000000", "log_every=1000")


def is_there() -> bool:
    """Whether this machine belongs to a Slurm cluster that answers."""
    if shutil.which("sinfo") is None:
        return False
    asked = ["sinfo", "--noheader", "--format=%T"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=60)
    return done.returncode == 0 and any(state in done.stdout for state in ("idle", "mix", "alloc"))


@contextlib.contextmanager
def counted_users(file: Path) -> Iterator[list[int]]:
    """Change how many of pytest's processes use what they share, one process at a time."""
    with file.open("a+") as counter:
        fcntl.flock(counter, fcntl.LOCK_EX)
        counter.seek(0)
        users = [int(counter.read() or 0)]
        yield users
        counter.truncate(0)
        counter.write(str(users[0]))


@pytest.fixture(scope="session")
def slurm(tmp_path_factory) -> Iterator[None]:
    """A Slurm cluster that answers; one that is started for the tests ends with them."""
    if is_there():
        yield
        return
    if not ONE_NODE.exists() or os.geteuid() != 0:
        pytest.skip("sinfo finds no Slurm, and ../shared/slurm/one-node cannot start one here")
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = base / "slurm"
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    with counted_users(base / "slurm-users") as users:
        if not users[0]:
            started = subprocess.run(
                [ONE_NODE, "start", folder],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # no pipe, which the daemons would keep open
                stderr=subprocess.DEVNULL,
                timeout=300,
            )
            if started.returncode:
                subprocess.run([ONE_NODE, "stop", folder])
                pytest.skip(f"../shared/slurm/one-node fails here: see {folder}")
        users[0] += 1
    yield
    with counted_users(base / "slurm-users") as users:
        users[0] -= 1
        if not users[0]:
            subprocess.run([ONE_NODE, "stop", folder])
    del os.environ["SLURM_CONF"]


def records_of(sweep: Path) -> dict[int, dict]:
    jobs = json.loads((sweep / ".submitted" / "jobs.json").read_text())["jobs"]
    return {int(number): job for number, job in jobs.items()}


@pytest.fixture
def started_jobs(started, tmp_path):
    """Start a command of ours, and cancel the jobs that it leaves in the queue."""
    yield started
    with contextlib.suppress(OSError):
        scancel(*(job["id"] for job in records_of(tmp_path / "s").values()))


def scancel(*arguments: str) -> None:
    subprocess.run(["scancel", *arguments], check=True)


def update(job: str, *changes: str) -> None:
    subprocess.run(["scontrol", "update", f"JobId={job}", *changes], check=True)


class Lines:
    """Lines of a process's output, read until one that is waited for."""

    def __init__(self, process: subprocess.Popen[str]):
        self._process = process
        self.seen: list[str] = []

    def until(self, pattern: str) -> re.Match[str]:
        """Read until a line matches."""
        for line in self._process.stdout:
            self.seen.append(line)
            if match := re.match(pattern, line):
                return match
        raise AssertionError((pattern, self.seen, self._process.stderr.read()))


def is_training(run: Path) -> bool:
    return (run / "metrics.jsonl").exists() and bool(lines_of(run))


def wait_until(condition, seconds=120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_sweep_is_an_array_whose_results_are_reported(own_process, tmp_path):
    arguments = (*SMALL, "experiment=published", "forward_energy_weight=1,1e-3", "n_train_iters=10")
    done = own_process(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    array = re.search(r"^Submitted 2 jobs: Slurm job array (\d+)$", done.stdout, re.MULTILINE)[1]
    for number in (0, 1):
        lines = [line for line in done.stdout.splitlines() if line.startswith(f"s/{number}: ")]
        *states, result = [line.removeprefix(f"s/{number}: ") for line in lines]
        known = [f"Slurm job {array}_{number} {state}" for state in ("PENDING", "RUNNING")]
        assert states in (known, known[:1], known[1:])  # a short job may be seen ended
        assert re.match(r"digits: test accuracy .* %", result)
        assert status_of(tmp_path / "s" / str(number)) == "finished"
    assert done.stdout.count("WARNING: no accounting here") <= 1
    before = records_of(tmp_path / "s")
    again = own_process(*arguments)
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.count("holds this run, finished: nothing to do") == 2
    assert records_of(tmp_path / "s") == before


def test_a_timed_out_job_resumes_and_a_cancelled_one_saves_and_stops(started_jobs, tmp_path):
    process = started_jobs(*ENDLESS, "seed=0")
    lines, run = Lines(process), tmp_path / "s" / "0"
    job = lines.until(r"s/0: Slurm job (\d+) RUNNING")[1]
    wait_until(lambda: is_training(run))
    update(job, "TimeLimit=1")  # less than signal_delay_s, so that it has as good as run out
    lines.until(rf"s/0: Slurm job {job} PENDING")
    assert status_of(run) == "interrupted"
    # What returns to the queue waits there for two minutes else.
    update(job, "TimeLimit=60", "StartTime=now")
    lines.until(rf"s/0: Slurm job {job} RUNNING")
    wait_until(lambda: "resumed from" in (run / "train.log").read_text())
    n_lines = len(lines_of(run))
    wait_until(lambda: len(lines_of(run)) > n_lines)
    scancel(job)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    failure, summary = err.splitlines()
    assert re.fullmatch(
        rf"bpc-train: s/0: Slurm job {job} ended \(CANCELLED\); the same command resumes it; "
        r"log: s/\.submitit/\S+\.err",
        failure,
    )
    assert len(failure) <= 200
    assert summary == "bpc-train: 1 of 1 jobs failed: s/0"
    assert (status_of(run), summary_of(run)["reason"]) == ("interrupted", "SIGTERM")
    iterations = [line["iteration"] for line in lines_of(run)]
    assert iterations == list(range(1000, 1000 * len(iterations) + 1, 1000))


def test_after_ctrl_c_the_same_command_waits_for_what_it_had_submitted(started_jobs, tmp_path):
    process = started_jobs(*ENDLESS, "seed=0,1", "hydra.launcher.array_parallelism=1")
    lines = Lines(process)
    array = lines.until(r"Submitted 2 jobs: Slurm job array (\d+)")[1]
    lines.until(rf"s/0: Slurm job {array}_0 RUNNING")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert err == (
        f"bpc-train: interrupted; Slurm jobs go on: {array}_0 running, {array}_1 pending; "
        f"'scancel {array}' ends them; the same command with hydra.sweep.dir=s waits for them "
        "and submits none twice\n"
    )
    before = records_of(tmp_path / "s")
    again = started_jobs(*ENDLESS, "seed=0,1", "hydra.launcher.array_parallelism=1")
    Lines(again).until(rf"Waiting for 2 jobs of an earlier command: Slurm job {array}$")
    assert records_of(tmp_path / "s") == before
    wait_until(lambda: is_training(tmp_path / "s" / "0"))
    scancel(array)
    _, err = again.communicate(timeout=60)
    *failures, summary = err.splitlines()
    assert sorted(line.split(";")[0] for line in failures) == [
        f"bpc-train: s/{number}: Slurm job {array}_{number} ended (CANCELLED)" for number in (0, 1)
    ]
    assert summary == "bpc-train: 2 of 2 jobs failed: s/0; s/1"
    assert status_of(tmp_path / "s" / "0") == "interrupted"
    assert not (tmp_path / "s" / "1").exists()


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("cpus_per_task=9999", "not available"),
        ("mem_gb=999999", "not available"),
        ("partition=nowhere", "invalid partition"),
        ("gpus_per_node=99", ""),
    ],
)
def test_what_no_node_can_meet_is_said_in_a_line(option, said, own_process, tmp_path):
    done = own_process(*SMALL, "seed=0,1", f"hydra.launcher.{option}")
    assert done.returncode == 1
    assert re.fullmatch(r"bpc-train: the jobs cannot be submitted: .*\n", done.stderr)
    assert said in done.stderr
    assert option in done.stderr
    assert not (tmp_path / "s").exists()


def test_the_tasks_of_a_job_train_together(own_process, tmp_path):
    arguments = (*SMALL, "n_train_iters=20", "hydra.launcher.tasks_per_node=2", "seed=0,1")
    done = own_process(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    for number in (0, 1):
        summary = summary_of(tmp_path / "s" / str(number))
        assert (summary["status"], summary["device"]) == ("finished", "2 × cpu")
        assert [line["iteration"] for line in lines_of(tmp_path / "s" / str(number))] == list(
            range(1, 21)
        )
