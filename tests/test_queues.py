"""Jobs in a queue: their states, their record in the sweep's directory, signals, waiting."""

import contextlib
import json
import os
import pickle
import re
import signal
import time
from pathlib import Path

import pytest
from run_files import summary_of

from bpc_cli.cli.cluster.queues import is_alive, parse_sacct, parse_squeue
from bpc_cli.runs.signals import StopOnce, Stopped, deferred_signals

pytest.importorskip("submitit", reason="the extra sweep")

SMALL = ("bpc-train", "-m", "data=digits", "model.width=16", "hydra.sweep.dir=s")
LOCAL = (*SMALL, "hydra/launcher=submitit_local")


def wait_until(condition, process, seconds=120) -> None:
    """Wait for something that a process which must not end before does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def record_of(sweep: Path) -> dict[str, dict]:
    return json.loads((sweep / ".submitted" / "jobs.json").read_text())["jobs"]


@pytest.mark.parametrize(
    ("line", "states"),
    [
        ("12_0|RUNNING|None", {"12_0": "RUNNING"}),
        ("12_3|PENDING|Resources", {"12_3": "PENDING"}),
        ("12_3|PENDING|PartitionConfig", {"12_3": "PENDING (PartitionConfig)"}),
        ("7|COMPLETED|None", {"7": "COMPLETED"}),
        ("12_[0-3%2]|PENDING|Priority", {}),
        ("slurm_load_jobs error", {}),
        ("", {}),
    ],
)
def test_squeue_is_understood(line, states):
    assert parse_squeue(f"{line}\n") == states


@pytest.mark.parametrize(
    ("line", "states"),
    [
        ("12_0|CANCELLED by 1000", {"12_0": "CANCELLED"}),
        ("12_1|TIMEOUT", {"12_1": "TIMEOUT"}),
        ("12_[2-9%4]|PENDING", {}),
        ("7", {}),
    ],
)
def test_sacct_is_understood(line, states):
    assert parse_sacct(f"{line}\n") == states


@pytest.mark.parametrize(
    ("state", "alive"),
    [
        *((state, True) for state in ("PENDING (PartitionConfig)", "RUNNING", "COMPLETING")),
        *((state, True) for state in ("REQUEUED", "SUSPENDED", "CONFIGURING")),
        *((state, False) for state in ("CANCELLED", "TIMEOUT", "NODE_FAIL", None)),
    ],
)
def test_which_jobs_have_ended(state, alive):
    assert is_alive(state) == alive


@pytest.fixture
def sigterm_as_in_a_job():
    stop = StopOnce()
    previous = signal.signal(signal.SIGTERM, stop)
    yield stop
    signal.signal(signal.SIGTERM, previous)


def test_the_first_sigterm_stops_and_more_change_nothing(sigterm_as_in_a_job):
    saved = []
    with pytest.raises(Stopped), deferred_signals() as request:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)
        saved.append(bool(request))
        try:
            request.handle()
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    assert saved == [True]
    assert sigterm_as_in_a_job.came


def test_outside_of_training_sigterm_stops_at_once(sigterm_as_in_a_job):
    with pytest.raises(Stopped):
        os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_job_that_returns_to_the_queue_does_so_whatever_follows(sigterm_as_in_a_job):
    requeued = []

    def requeue(number, frame):
        requeued.append(number)
        os.kill(os.getpid(), signal.SIGTERM)  # as Slurm ends what is put back into its queue
        time.sleep(0.05)
        raise SystemExit

    previous = signal.signal(signal.SIGUSR2, requeue)
    try:
        with pytest.raises(SystemExit), deferred_signals() as request:
            os.kill(os.getpid(), signal.SIGUSR2)
            time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)
            request.handle()
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGUSR2, previous)
    assert requeued == [signal.SIGUSR2]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("signal_delay_s=60", "timeout_min=1"), "signal_delay_s=60 must be less than the 60 sec"),
        (("signal_delay_s=90", "timeout_min=1"), "signal_delay_s=90 must be less than the 60 sec"),
        (("signal_delay_s=0",), "hydra.launcher.signal_delay_s must be a number above 0, not 0"),
        (("timeout_min=long",), "hydra.launcher.timeout_min must be a number above 0, not long"),
    ],
)
@pytest.mark.parametrize("launcher", ["submitit_slurm", "submitit_local"])
def test_times_that_leave_none_to_work_are_refused(launcher, options, said, command, tmp_path):
    options = [f"hydra.launcher.{option}" for option in options]
    done = command(*SMALL, "seed=0,1", f"hydra/launcher={launcher}", *options)
    assert done.returncode == 1
    assert done.stderr.startswith(f"bpc-train: {'' if 'must be a' in said else 'hydra.launcher.'}")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "s").exists()


@pytest.mark.slow
def test_results_and_failures_take_a_line_each_and_what_is_done_is_not_done_again(
    command, tmp_path
):
    arguments = (*LOCAL, "n_train_iters=10", f"resume=null,{'x' * 190}")
    done = command(*arguments)
    assert done.returncode == 1
    ids = [job["id"] for job in record_of(tmp_path / "s").values()]
    assert f"Submitted 2 jobs: process {' '.join(sorted(ids, key=int))}\n" in done.stdout
    assert f"s/0: process {ids[0]} RUNNING\n" in done.stdout
    assert re.search(r"^s/0: digits: test accuracy .* %", done.stdout, re.MULTILINE)
    failure, summary = done.stderr.splitlines()
    assert len(failure) <= 200
    log = re.fullmatch(r"bpc-train: s/1: .*x…; log: (.*)", failure)
    assert log and (tmp_path / log[1]).is_file()
    assert summary == "bpc-train: 1 of 2 jobs failed: s/1"
    again = command(*arguments)
    assert "s/0 holds this run, finished: nothing to do\n" in again.stdout
    assert "Submitted 1 job:" in again.stdout
    jobs = record_of(tmp_path / "s")
    assert jobs["0"]["id"] == ids[0]
    assert jobs["1"]["id"] != ids[1]


class Executed:
    """What leaves a file when it is unpickled."""

    def __init__(self, file: Path):
        self._file = file

    def __reduce__(self):
        return (Path.touch, (self._file,))


def entry(**changes) -> dict:
    return {
        **{"queue": "local", "id": "1", "overrides": ["seed=0"], "answer": "ab12-0.json"},
        **{"log": "log"},
        **changes,
    }


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"jobs": [1]}',
        b'{"jobs": {"0": 1}}',
        b'{"jobs": ' * 9000,
        *(
            json.dumps({"jobs": {"0": entry(**change)}}).encode()
            for change in (
                *({"answer": "../../x.json"}, {"id": "1; rm"}, {"id": 1}, {"queue": None}),
                *({"overrides": "seed=0"}, {"overrides": [1]}, {"more": 1}),
            )
        ),
    ],
    ids=range(13),
)
def test_a_damaged_record_is_refused(content, command, tmp_path):
    folder = tmp_path / "s" / ".submitted"
    folder.mkdir(parents=True)
    (folder / "jobs.json").write_bytes(content)
    (folder / "jobs.pkl").write_bytes(pickle.dumps(Executed(tmp_path / "executed")))
    done = command(*LOCAL, "seed=0,1")
    assert done.returncode == 1
    assert re.fullmatch(r"bpc-train: s/.submitted/jobs.json is damaged: .*\n", done.stderr)
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "s" / ".submitit").exists()


@pytest.mark.parametrize("name", [".submitted", ".submitit"])
def test_no_link_leads_out_of_a_sweep(name, command, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / name).symlink_to(tmp_path / "elsewhere")
    done = command(*LOCAL, "seed=0,1")
    assert done.returncode == 1
    assert "is a link that leads out" in done.stderr
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.fixture
def started_jobs(started, tmp_path):
    """Start a command of ours, and end the jobs that it leaves running."""
    yield started
    for job in record_of(tmp_path / "s").values():
        with contextlib.suppress(OSError):
            os.kill(int(job["id"]), signal.SIGTERM)


@pytest.mark.slow
def test_the_same_command_waits_for_jobs_that_go_on(started_jobs, command, tmp_path):
    arguments = (*LOCAL, "seed=0", "n_train_iters=100000000", "test_every=1000000")
    process = started_jobs(*arguments)
    metrics = tmp_path / "s" / "0" / "metrics.jsonl"
    wait_until(lambda: metrics.exists() and metrics.stat().st_size, process)
    process.send_signal(signal.SIGINT)  # to this process alone, not to its jobs
    assert process.wait(timeout=60) == 128 + signal.SIGINT
    (each,) = [job["id"] for job in record_of(tmp_path / "s").values()]
    assert process.stderr.readline() == (  # the job keeps the stream open
        f"bpc-train: interrupted; processes go on: {each} running; 'kill {each}' ends them; "
        "the same command with hydra.sweep.dir=s waits for them and submits none twice\n"
    )
    other = command(*arguments[:-1], "test_every=2000000")
    assert other.returncode == 1
    assert f"process {each} is at work with other options on s/0: 'kill {each}', or" in other.stderr
    again = started_jobs(*arguments)
    assert again.stdout.readline() == "1 job in s\n"
    assert again.stdout.readline() == f"Waiting for 1 job of an earlier command: process {each}\n"
    os.kill(int(each), signal.SIGTERM)
    _, err = again.communicate(timeout=60)
    assert again.returncode == 1
    assert err.startswith(f"bpc-train: s/0: process {each} ended; the same command resumes it; log")
    summary = summary_of(tmp_path / "s" / "0")
    assert (summary["status"], summary["reason"]) == ("interrupted", "SIGTERM")
