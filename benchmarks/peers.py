"""`make bench-peers`: training of predictive coding networks by this package and by others.

Every peer is a process in an environment of its own, on the CPU. Step times are taken in
alternation, one peer at work at a time, so that a noisy machine cancels out of the ratios within a
round: these are the numbers to quote. Then each trains from fresh weights up to an accuracy.

All have the same network, batches, rates, numbers of steps and precision; where a peer does
otherwise, its script in `benchmarks/peers` says how.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bpc_cli.data.datasets import load_dataset
from bpc_cli.errors import UserError

SCRIPTS = Path(__file__).with_suffix("")
ENVIRONMENTS = Path(__file__).parents[1] / ".bench"
ROUNDS = 7
STEPS = 50
BOTH = ("discriminative", "bidirectional")


class Peer(NamedTuple):
    """What is measured: a script, what to install for it (nothing: our environment), settings."""

    script: str
    requirements: tuple[str, ...] = ()
    settings: tuple[str, ...] = BOTH


# FabricPC and PCX have no network whose two directions predict the same states.
PEERS = {
    "ours": Peer("ours.py"),
    "fabricpc": Peer("fabric.py", ("fabricpc==0.6.0",), BOTH[:1]),
    "pcx": Peer("pcx_loop.py", ("pcx==0.6.3", "jax<0.5", "equinox<0.12"), BOTH[:1]),
    "torch": Peer("torch_loop.py", ("torch", "numpy")),
    "jax": Peer("jax_loop.py"),
}


class Child:
    """A peer's process, which takes a command at a time."""

    def __init__(self, python: Path, script: str, data: Path, setting: str):
        # A thread that spins while it waits for others is slowed a hundredfold where another
        # process has its core, so PyTorch's wait passively.
        only_cpu = {
            "JAX_PLATFORMS": "cpu",
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_WAIT_POLICY": "passive",
        }
        self.process = subprocess.Popen(
            [python, SCRIPTS / script, "--data", data, "--setting", setting],
            env=os.environ | only_cpu,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.script = script

    def ask(self, command: str) -> dict[str, Any]:
        """Give a command, and wait for its answer."""
        with suppress(BrokenPipeError):  # what it died of is on standard error
            print(command, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self.script} ended at '{command}'")
        return json.loads(answer)


def main() -> None:
    arguments = parse_arguments()
    pythons = {name: find_python(name, PEERS[name].requirements) for name in arguments.peers}
    pythons = {name: python for name, python in pythons.items() if python is not None}
    results: dict[str, Any] = {"machine": describe_machine(), "settings": {}}
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "mnist.npz")
        save_mnist(arguments.archives, data)
        for setting in BOTH:
            able = {n: python for n, python in pythons.items() if setting in PEERS[n].settings}
            if not able:
                continue
            with started(able, data, setting) as children:
                rows = measure(children, arguments.epochs, arguments.target)
            print_table(setting, rows)
            results["settings"][setting] = rows
            (arguments.out / "peers.json").write_text(json.dumps(results, indent=1))
    print(f"everything is in {arguments.out / 'peers.json'}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--archives", help="a folder with MNIST's four original archives")
    parser.add_argument("--peers", default=",".join(PEERS), help="which, separated by commas")
    parser.add_argument("--epochs", type=int, default=10, help="how many at most")
    parser.add_argument("--target", type=float, default=98, help="the accuracy that ends training")
    parser.add_argument("--out", type=Path, default=Path("outputs/bench"))
    arguments = parser.parse_args()
    arguments.peers = arguments.peers.split(",")
    unknown = set(arguments.peers) - set(PEERS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(PEERS)}")
    return arguments


def find_python(name: str, requirements: tuple[str, ...]) -> Path | None:
    """Find a peer's interpreter, making its environment first; None: it cannot be made."""
    if not requirements:
        return Path(sys.executable)
    folder = ENVIRONMENTS / name
    python, ready = folder / "bin" / "python", folder / ".ready"
    wanted = "\n".join(requirements)
    if ready.exists() and ready.read_text() == wanted:
        return python
    print(f"making {name}'s environment …", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*install, *requirements], capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        print(f"{name} is left out, as it cannot be installed: {reason}")
        return None
    ready.write_text(wanted)
    return python


def save_mnist(archives: str | None, path: Path) -> None:
    """Load MNIST and save it for the peers."""
    try:
        dataset = load_dataset("mnist", archive_dir=archives)
    except UserError as error:
        raise SystemExit(f"{error}\nhere: --archives FOLDER") from error
    names = ("train_images", "train_labels", "test_images", "test_labels")
    np.savez(path, **{name: getattr(dataset, name) for name in names})


@contextmanager
def started(pythons: dict[str, Path], data: Path, setting: str) -> Iterator[dict[str, Child]]:
    """Start all peers, one after the other, and end them."""
    children = {}
    try:
        for name, python in pythons.items():
            children[name] = Child(python, PEERS[name].script, data, setting)
            children[name].ask("memory")  # wait until it has compiled
        yield children
    finally:
        for child in children.values():
            child.process.stdin.close()
            child.process.wait()


def measure(children: dict[str, Child], most: int, target: float) -> dict[str, dict[str, Any]]:
    """Measure step times in alternation, then training up to an accuracy, peer by peer."""
    for child in children.values():
        child.ask(f"steps {STEPS}")
    rounds = [
        {name: 1e3 * child.ask(f"steps {STEPS}")["seconds"] / STEPS for name, child in turn}
        for turn in ROUNDS * [list(children.items())]
    ]
    rows = {}
    for name, child in children.items():
        ratios = [each[name] / each["ours"] for each in rounds if "ours" in each]
        trained = child.ask(f"epochs {most} {target}")
        rows[name] = {
            "versions": child.ask("versions"),
            "ms_per_step": statistics.median(each[name] for each in rounds),
            "ratio_to_ours": statistics.median(ratios) if ratios else None,
            "seconds_to_97": seconds_to(97, trained),
            "seconds_to_98": seconds_to(98, trained),
            "best_accuracy": max(trained["accuracy"]),
            **child.ask("memory"),
            "epochs": trained,
            "ms_per_step_of_rounds": [each[name] for each in rounds],
        }
    return rows


def seconds_to(accuracy: float, trained: dict[str, list[float]]) -> float | None:
    """Find how long training took until an accuracy was first reached; None: it was not."""
    epochs = zip(trained["accuracy"], trained["seconds"], strict=True)
    return next((seconds for reached, seconds in epochs if reached >= accuracy), None)


def print_table(setting: str, rows: dict[str, dict[str, Any]]) -> None:
    print(f"\n{setting}")
    print(
        f"{'peer':<10}{'ms/step':>9}{'ratio':>8}{'s to 97 %':>11}{'s to 98 %':>11}{'best %':>8}"
        f"{'MiB':>7}  versions"
    )
    for name, row in rows.items():
        versions = ", ".join(f"{package} {number}" for package, number in row["versions"].items())
        print(
            f"{name:<10}{row['ms_per_step']:>9.2f}{shown(row['ratio_to_ours'], 2):>8}"
            f"{shown(row['seconds_to_97'], 1):>11}{shown(row['seconds_to_98'], 1):>11}"
            f"{row['best_accuracy']:>8.2f}{shown(row['peak_mib'], 0):>7}  {versions}"
        )


def shown(number: float | None, digits: int) -> str:
    return "–" if number is None else f"{number:.{digits}f}"


def describe_machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    main()
