"""Training on several devices: the same losses, and checkpoints that any number can resume."""

import json
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import Server, environment_in
from pictures import SIZE, write_folder

from bpc_cli.core.layout import lay_out, split

SMALL = ("data=digits", "model.width=32", "n_train_iters=40", "test_every=20")


def metrics_of(run: Path) -> list[dict]:
    """A run's metrics, without seconds."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def check_same_up_to_rounding(run: Path, other: Path) -> None:
    """Check that two runs have the same metrics but for rounding."""
    ours, theirs = metrics_of(run), metrics_of(other)
    assert [line.keys() for line in ours] == [line.keys() for line in theirs]
    for a, b in zip(ours, theirs, strict=True):
        numbers = [name for name, value in a.items() if isinstance(value, float)]
        np.testing.assert_allclose(
            [a[name] for name in numbers], [b[name] for name in numbers], rtol=2e-4
        )


@pytest.fixture(scope="session")
def on_eight_devices(tmp_path_factory):
    """Run a command in an empty directory, on a machine of eight devices."""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    environment = environment_in(tmp_path_factory.mktemp("eight-devices")) | flags
    server = Server(environment)
    yield lambda directory, *arguments: server.run(arguments, directory, environment)
    server.close()


@pytest.mark.parametrize(
    ("options", "n_devices", "then"),
    [
        pytest.param(("n_seeds=2",), 4, 1, id="seeds and batches over four"),
        pytest.param(("n_seeds=4",), 4, 2, marks=pytest.mark.slow, id="seeds"),
        pytest.param((), 8, 4, marks=pytest.mark.slow, id="a batch over eight"),
        pytest.param(
            ("model=cnn", "model.channels=[4,8]", "inference.tolerance=1e-4", "n_train_iters=8"),
            *(2, 1),
            marks=pytest.mark.slow,
            id="convolutions, and a tolerance",
        ),
    ],
)
def test_devices_change_nothing_but_rounding(options, n_devices, then, on_eight_devices, tmp_path):
    options = (*SMALL, *options)
    half = next((2 for option in options if option == "n_train_iters=8"), 20)
    for run, n_iters, devices in (
        ("one", None, 1),
        ("several", half, n_devices),
        ("several", None, then),
    ):
        more = () if n_iters is None else (f"n_train_iters={n_iters}",)
        where = (f"compute.devices={devices}", f"hydra.run.dir={run}")
        done = on_eight_devices(tmp_path, "bpc-train", *options, *more, *where)
        assert done.returncode == 0, done.stderr
    check_same_up_to_rounding(tmp_path / "one", tmp_path / "several")
    warned = f"resuming with other device (was {n_devices} × cpu, now"
    assert warned in done.stdout + done.stderr


@pytest.mark.slow
def test_a_run_on_four_devices_that_is_killed_resumes_on_one(started, own_process, tmp_path):
    options = (*SMALL, "n_seeds=4", "n_train_iters=1000", "test_every=500", "checkpoint_every=20")
    process = started("bpc-train", *options, "compute.devices=4", "hydra.run.dir=run")
    saved = tmp_path / "run" / "checkpoints" / "last.ckpt"
    wait_for(saved)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = own_process("bpc-train", *options, "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    assert "resumed from" in done.stdout
    iterations = [line["iteration"] for line in metrics_of(tmp_path / "run")]
    assert iterations == sorted(iterations) and iterations[-1] == 1000
    assert len(iterations) == 4 * 1000


def test_members_need_not_communicate_and_batches_only_sum():
    program = """
        import re, jax, numpy as np
        jax.config.update("jax_num_cpu_devices", 4)
        from small_models import inference_of, learning_of, sgd, small_model
        from bpc_cli.core.ensembles import stack
        from bpc_cli.core.layout import lay_out, place
        from bpc_cli.core.learning import make_state
        from bpc_cli.core.training import Chunk, Examples, Training, train_ensemble

        for n_members in (4, 1):
            inference = inference_of((1.0, 1.0), sgd(0.1), 3)
            learning = learning_of((1.0, 1.0), sgd(0.01))
            training = [
                Training(inference, learning, (), jax.random.PRNGKey(seed))
                for seed in range(n_members)
            ]
            states = [
                make_state(small_model(seed, [3, 8, 6], "tanh"), learning)
                for seed in range(n_members)
            ]
            layout = lay_out(n_members, 8, jax.devices())
            examples = Examples(np.zeros((16, 6), np.uint8), np.zeros(16, np.int32))
            indices = np.zeros((n_members, 2, 8), np.int32)
            chunk = Chunk(
                place(examples, layout.of_all),
                place(indices, layout.of_steps),
                place(np.int32(2), layout.of_all),
                place(stack(training), layout.of_members),
            )
            lowered = train_ensemble.lower(chunk, place(stack(states), layout.of_members))
            text = lowered.compile().compiled.as_text()
            found = re.findall(r" (all-[a-z]+|collective-[a-z]+|reduce-scatter)[a-z-]*\\(", text)
            print(n_members, *sorted(set(found)))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["4", "1 all-reduce"]


@pytest.mark.parametrize(
    ("n_members", "batch_size", "n_devices", "expected"),
    [(8, 64, 2, (2, 1)), (1, 64, 4, (1, 4)), (6, 64, 4, (2, 2)), (3, 60, 5, (1, 5))],
)
def test_members_are_split_first_and_batches_over_what_is_left(
    n_members, batch_size, n_devices, expected
):
    assert split(n_members, batch_size, n_devices) == expected


def test_a_batch_is_split_evenly_or_not_at_all():
    with pytest.raises(ValueError, match="a batch of 63 cannot be split over 2 devices"):
        split(3, 63, 2)
    assert lay_out(3, 63, jax.devices()[:1]) == (None, None, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("compute.devices=2", "batch_size=63"),
            "compute.devices=2, n_seeds=1: a batch of 63 cannot be split over 2 devices",
        ),
        (("compute.devices=4",), r"compute.devices=4, and there are 2 \(cpu\): choose fewer"),
    ],
)
def test_devices_that_cannot_be_used_are_rejected_in_a_line(
    options, message, own_process, tmp_path
):
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    done = own_process("bpc-train", *SMALL, *options, **flags)
    assert done.returncode == 1
    assert re.fullmatch(f"bpc-train: {message}.*", done.stderr.strip())
    assert not any(tmp_path.glob("outputs/*/*"))


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ("some", "compute.devices must be a whole number or all, not 'some'"),
        ("0", "compute.devices must be at least 1, not 0"),
        ("2.5", "compute.devices must be a whole number or all, not 2.5"),
    ],
)
def test_a_number_of_devices_is_a_whole_number_or_all(devices, message, command):
    done = command("bpc-train", *SMALL, f"compute.devices={devices}")
    assert (done.returncode, done.stderr) == (1, f"bpc-train: {message}\n")


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def start_two(
    started, *options: str, of_each: tuple[tuple[str, ...], ...] = ((), ())
) -> list[subprocess.Popen[str]]:
    """Start two processes that train together on this machine."""
    at = (f"compute.coordinator=localhost:{free_port()}", "compute.n_processes=2")
    return [
        started("bpc-train", *options, *at, f"compute.process={number}", *of_each[number])
        for number in range(2)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("n_seeds", [1, 2])
def test_two_processes_train_as_one_does(n_seeds, started, own_process, tmp_path):
    options = (*SMALL, f"n_seeds={n_seeds}", "n_train_iters=300", "test_every=100")
    options = (*options, "optim.param_lr=1e-4")
    leader, follower = start_two(started, *options, "hydra.run.dir=two")
    assert (leader.wait(120), follower.wait(120)) == (0, 0)
    assert own_process("bpc-train", *options, "hydra.run.dir=one").returncode == 0
    check_same_up_to_rounding(tmp_path / "one", tmp_path / "two")
    summary = json.loads((tmp_path / "two" / "summary.json").read_text())
    assert (summary["status"], summary["device"]) == ("finished", "2 × cpu")
    assert "Iter" not in follower.communicate()[0]


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_two_processes_of_which_one_is_killed_end_and_one_alone_resumes(
    killed, started, own_process, tmp_path
):
    options = (*SMALL, "n_train_iters=100000", "test_every=1000", "checkpoint_every=20")
    options = (*options, "hydra.run.dir=run")
    processes = start_two(started, *options)
    wait_for(tmp_path / "run" / "checkpoints" / "last.ckpt")
    processes[killed].kill()
    assert all(process.wait(120) != 0 for process in processes)
    done = own_process("bpc-train", *options, "n_train_iters=2000")
    assert done.returncode == 0, done.stderr
    assert "resumed from" in done.stdout


@pytest.mark.slow
def test_a_signal_to_the_leader_saves_and_ends_both(started, tmp_path):
    options = (*SMALL, "n_train_iters=1000000", "checkpoint_every=20", "hydra.run.dir=run")
    leader, follower = start_two(started, *options)
    saved = tmp_path / "run" / "checkpoints" / "last.ckpt"
    wait_for(saved)
    before = saved.stat().st_mtime_ns
    leader.send_signal(signal.SIGTERM)
    assert (leader.wait(60), follower.wait(60)) == (128 + signal.SIGTERM,) * 2
    assert saved.stat().st_mtime_ns > before
    assert "resumes" in leader.communicate()[1]


@pytest.mark.slow
@pytest.mark.parametrize("differ_in", ["options", "data"])
def test_processes_that_differ_train_nothing(differ_in, started, tmp_path):
    of_each = (("seed=0",), ("seed=5",))
    options = SMALL
    if differ_in == "data":
        for folder, n_images in (("ours", 20), ("theirs", 21)):
            write_folder(tmp_path / folder, n_images)
        of_each = (("data.dir=ours",), ("data.dir=theirs",))
        options = (*SMALL, "data=image_folder", f"data.image_size={SIZE}", "batch_size=2")
    processes = start_two(started, *options, "hydra.run.dir=run", of_each=of_each)
    for process in processes:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 1
        assert "the processes of compute.coordinator differ in options, data or" in errors
        assert "Iter" not in output
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "code"),
    [
        pytest.param(("seed=0,1", "n_train_iters=1000000"), 128 + signal.SIGTERM, id="signal"),
        pytest.param(
            ("on_divergence=stop", "optim.param=sgd", "optim.param_lr=1e9,1e-3"), 1, id="divergence"
        ),
    ],
)
def test_the_end_of_a_sweep_ends_it_for_all(options, code, started, tmp_path):
    leader, follower = start_two(started, "-m", *SMALL, "hydra.sweep.dir=sweep", *options)
    if code != 1:
        wait_for(tmp_path / "sweep" / "0" / "checkpoints" / "last.ckpt")
        leader.send_signal(signal.SIGTERM)
    assert (leader.wait(60), follower.wait(60)) == (code, code)
    assert [path.name for path in (tmp_path / "sweep").iterdir() if path.is_dir()] == ["0"]
    (output, errors) = follower.communicate()
    assert "jobs" not in output + errors and "Traceback" not in errors
    assert not (tmp_path / "multirun").exists() and not (tmp_path / "outputs").exists()


def wait_for(path: Path) -> None:
    """Wait until a file is there."""
    deadline = time.time() + 120
    while not path.exists():
        assert time.time() < deadline, f"{path} does not come"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("compute.process=1",),
            "compute.n_processes and compute.process need compute.coordinator=ADDRESS:PORT",
        ),
        (
            ("compute.coordinator=node7",),
            "compute.coordinator must be ADDRESS:PORT or slurm, not node7",
        ),
        (
            ("compute.coordinator=node7:99999", "compute.n_processes=2", "compute.process=1"),
            "compute.coordinator must be ADDRESS:PORT or slurm, not node7:99999",
        ),
        (
            ("compute.coordinator=node7:99", "compute.n_processes=2", "compute.process=2"),
            "compute.coordinator=node7:99 needs compute.n_processes, and compute.process below it",
        ),
        (
            ("compute.coordinator=slurm",),
            "compute.coordinator=slurm is for the tasks of a Slurm job: start them by srun, or "
            "give compute.coordinator=ADDRESS:PORT",
        ),
        (
            ("-m", "seed=0,1", "compute.coordinator=node7:99", "hydra/launcher=joblib"),
            "compute.coordinator lets processes train the same jobs in the same order: choose "
            "hydra/sweeper=basic, and hydra/launcher=basic or vmap",
        ),
        (
            ("-m", "seed=0,1", "compute.coordinator=node7:99", "hydra/sweeper=optuna"),
            "compute.coordinator lets processes train the same jobs in the same order: choose "
            "hydra/sweeper=basic, and hydra/launcher=basic or vmap",
        ),
    ],
)
def test_processes_that_cannot_come_together_are_rejected_in_a_line(options, message, command):
    done = command("bpc-train", *SMALL, *options)
    assert (done.returncode, done.stderr) == (1, f"bpc-train: {message}\n")


def test_a_coordinator_that_is_no_host_is_one_line(command):
    at = ("compute.coordinator=no.such.invalid:99", "compute.n_processes=2", "compute.process=1")
    done = command("bpc-train", *SMALL, *at)
    assert done.returncode == 1
    start = "bpc-train: compute.coordinator=no.such.invalid:99: no process listens there ("
    assert done.stderr.startswith(start) and done.stderr.count("\n") == 1
    assert done.stderr.endswith("); the one of compute.process=0 does\n")
