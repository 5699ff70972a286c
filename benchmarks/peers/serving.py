"""What all peers have in common: the numbers of the settings, the data, and how they are asked.

It needs NumPy alone, as it runs in every peer's environment.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

SIZES = (784, 256, 256, 10)  # image side first
BATCH_SIZE = 256
N_INFERENCE_STEPS = 8
ACTIVITY_RATE = 0.1
WEIGHT_RATE = 1e-3
FORWARD_WEIGHT = 1e-3  # α_f, of the bidirectional setting
BACKWARD_WEIGHT = 1.0  # α_b
SETTINGS = ("discriminative", "bidirectional")


class Data(NamedTuple):
    """MNIST: flattened uint8 images, a row each, and class numbers."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


class Trainer(Protocol):
    """A network that is trained, as every peer implements it."""

    def reset(self) -> None:
        """Make fresh weights and a fresh state of their optimiser."""
        ...

    def train(self, rows: np.ndarray) -> None:
        """Take a step on each row of example numbers, and wait until all are done."""
        ...

    def predict(self) -> np.ndarray:
        """Predict the classes of all test images by the feedforward pass."""
        ...


def serve(
    make_trainer: Callable[[Data, str], Trainer],
    packages: tuple[str, ...],
    settings: tuple[str, ...] = SETTINGS,
) -> None:
    """Compile a training step, then answer each line of standard input by a line of JSON.

    The commands are `versions`, `steps N`, `epochs MOST TARGET`, `memory` and `quit`.

    Args:
        make_trainer: makes a trainer of the data and the setting.
        packages: whose versions are told.
        settings: those that the peer has.
    """
    replies, sys.stdout = sys.stdout, sys.stderr  # whatever else is printed is no reply
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True, help="an .npz file of the fields of Data")
    parser.add_argument("--setting", choices=settings, default=settings[0])
    arguments = parser.parse_args()
    with np.load(arguments.data) as arrays:
        data = Data(**arrays)
    trainer, n_examples = make_trainer(data, arguments.setting), len(data.train_images)
    trainer.reset()
    trainer.train(batch_rows(0, n_examples)[:2])
    answers = {
        "versions": lambda: {package: version(package) for package in packages},
        "steps": lambda n: time_steps(trainer, n_examples, int(n)),
        "epochs": lambda most, target: run_epochs(trainer, data, int(most), float(target)),
        "memory": lambda: {"peak_mib": peak_mib()},
    }
    for line in sys.stdin:
        command, *values = line.split()
        if command == "quit":
            return
        print(json.dumps(answers[command](*values)), file=replies, flush=True)


def batch_rows(epoch: int, n_examples: int) -> np.ndarray:
    """List the example numbers of an epoch's whole batches, a row each, in a fresh order."""
    order = np.random.default_rng([0, epoch]).permutation(n_examples).astype(np.int32)
    whole = n_examples // BATCH_SIZE * BATCH_SIZE
    return order[:whole].reshape(-1, BATCH_SIZE)


def time_steps(trainer: Trainer, n_examples: int, n_steps: int) -> dict[str, float]:
    """Measure the seconds that training steps take."""
    n_epochs = -(-n_steps // (n_examples // BATCH_SIZE))
    rows = np.concatenate([batch_rows(epoch, n_examples) for epoch in range(n_epochs)])[:n_steps]
    began = time.perf_counter()
    trainer.train(rows)
    return {"seconds": time.perf_counter() - began}


def run_epochs(trainer: Trainer, data: Data, most: int, target: float) -> dict[str, list[float]]:
    """Train from fresh weights, for so many epochs at most or up to a test accuracy in percent.

    Returns:
        After each epoch, the accuracy, and the seconds of all training so far without the tests'.
    """
    trainer.reset()
    accuracies, seconds, spent = [], [], 0.0
    for epoch in range(most):
        rows = batch_rows(epoch, len(data.train_images))
        began = time.perf_counter()
        trainer.train(rows)
        spent += time.perf_counter() - began
        seconds.append(spent)
        accuracies.append(100 * float(np.mean(trainer.predict() == data.test_labels)))
        if accuracies[-1] >= target:
            break
    return {"accuracy": accuracies, "seconds": seconds}


def peak_mib() -> float | None:
    """Read the most memory that this process has held, in MiB; None where the system hides it."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) / 1024 if found else None


def unit_pixels(images: np.ndarray) -> np.ndarray:
    """Turn uint8 images into pixels in [0, 1]."""
    return images.astype(np.float32) / np.float32(255)
