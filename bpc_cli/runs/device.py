"""The device that models are trained on: how JAX compiles for it, and its memory."""

import contextlib
import hashlib
import math
import os
import platform
import resource
import socket
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import psutil
from jaxtyping import PyTree

from bpc_cli.core.layout import wait_for_all
from bpc_cli.core.learning import TrainState
from bpc_cli.errors import UserError, one_line
from bpc_cli.files import cache_directory
from bpc_cli.runs.compilation_cache import keep_programs

_MEETING_SECONDS = 300  # for the slowest node of a cluster to begin
_SILENCE_SECONDS = 30  # after which a process counts as lost, and all others end


class Processes(NamedTuple):
    """The processes that train together, and which of them this one is.

    Attributes:
        coordinator: the address and port that the first one listens on; None: they are the tasks
            that Slurm has started, which says the rest as well.
        number: how many they are.
        own: which one this is, from 0.
    """

    coordinator: str | None
    number: int | None
    own: int | None


def configure_jax(
    *,
    compilation_cache: bool,
    matmul_precision: str | None,
    devices: int | str = 1,
    processes: Processes | None = None,
) -> None:
    """Set how this process compiles, before it does, and how many threads it runs on.

    On CPU, XLA takes $OMP_NUM_THREADS threads where that is set, or else one per core.

    Args:
        compilation_cache: whether to keep compiled programs on disk, so that the next process does
            not compile them again. They go to `cache_directory()`, in a folder for each type of
            processor: a program compiled for one may not run on another that shares the disk.
        matmul_precision: `jax.default_matmul_precision`; None is JAX's own default.
        devices: how many are to be used, or "all"; on CPU so many are made of it.
        processes: the processes that train together; None: this one is alone.

    Raises:
        UserError: if there is no device of the platform that $JAX_PLATFORMS names, or the other
            processes are not to be found.
    """
    jax.config.update("jax_default_matmul_precision", matmul_precision)
    if threads := os.environ.get("OMP_NUM_THREADS"):  # joblib limits each process so
        os.environ.setdefault("NPROC", threads)  # which XLA reads, and the other not
    if compilation_cache:
        try:
            keep_programs(cache_directory() / "jax" / _processor())
        except OSError:  # a home that cannot be written is no reason to stop, or to warn each run
            compilation_cache = False
    jax.config.update("jax_enable_compilation_cache", compilation_cache)
    if isinstance(devices, int) and "host_platform_device_count" not in _xla_flags():
        with contextlib.suppress(RuntimeError):  # JAX has found its devices already
            jax.config.update("jax_num_cpu_devices", devices)
    is_first = processes is not None and not jax.distributed.is_initialized()
    if processes is not None and is_first:
        _come_together(processes)
    try:
        jax.devices()
    except (AssertionError, RuntimeError) as error:
        platforms = os.environ.get("JAX_PLATFORMS")
        reason = textwrap.shorten(one_line(error), 150, placeholder=" …")
        raise UserError(
            f"JAX finds no device of JAX_PLATFORMS={platforms}: install what it needs, or choose "
            f"JAX_PLATFORMS=cpu{f' ({reason})' if reason else ''}"
        ) from error
    if is_first:  # while all are here: see `layout.introduce`
        wait_for_all()


def _come_together(processes: Processes) -> None:
    """Wait for the other processes.

    Raises:
        UserError: if they are not to be found.
    """
    if processes.coordinator is None and "SLURM_JOB_ID" not in os.environ:
        raise UserError(
            "compute.coordinator=slurm is for the tasks of a Slurm job: start them by srun, or "
            "give compute.coordinator=ADDRESS:PORT"
        )
    if processes.coordinator is not None and processes.own:
        _find(processes.coordinator)
    elif processes.coordinator is not None:
        print(
            f"waiting up to {_MEETING_SECONDS} s for compute.n_processes={processes.number} at "
            f"{processes.coordinator}",
            flush=True,
        )
    try:
        jax.distributed.initialize(
            *processes,
            cluster_detection_method=None if processes.coordinator else "slurm",
            initialization_timeout=_MEETING_SECONDS,
            heartbeat_timeout_seconds=_SILENCE_SECONDS,
            shutdown_timeout_seconds=_SILENCE_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        reason = textwrap.shorten(one_line(error), 150, placeholder=" …")
        raise UserError(
            f"compute.coordinator={processes.coordinator or 'slurm'}: the processes do not come "
            f"together ({reason})"
        ) from error


def _find(coordinator: str) -> None:
    """Wait for the first process to listen; JAX would end this one without a word of why.

    Raises:
        UserError: if there is no such host, or nothing listens there.
    """
    host, _, port = coordinator.rpartition(":")
    last = time.monotonic() + _MEETING_SECONDS
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            if isinstance(error, socket.gaierror) or time.monotonic() > last:
                raise UserError(
                    f"compute.coordinator={coordinator}: no process listens there "
                    f"({one_line(error)}); the one of compute.process=0 does"
                ) from error
        time.sleep(0.2)


def count_devices(wanted: int | str) -> int:
    """Count the devices to be used: of each process so many as are wanted, or "all".

    Raises:
        UserError: if there are fewer.
    """
    there_are = len(jax.local_devices())
    if wanted == "all":
        return there_are * jax.process_count()
    if int(wanted) > there_are:
        why = "" if device_kind() != "cpu" else "; a process's first job says how many of its CPU"
        raise UserError(
            f"compute.devices={wanted}, and there are {there_are} ({device_kind()}): choose fewer, "
            f"or all{why}"
        )
    return int(wanted) * jax.process_count()


def choose_devices(n_devices: int) -> list[Any]:
    """Choose the devices of a run: the first ones of each process."""
    n_processes = jax.process_count()
    return [
        device
        for process in range(n_processes)
        for device in jax.local_devices(process)[: n_devices // n_processes]
    ]


def device_kind(n_devices: int = 1) -> str:
    """Name the kind of device that JAX uses, and how many where they are several."""
    kind = str(jax.devices()[0].device_kind)
    return kind if n_devices == 1 else f"{n_devices} × {kind}"


def device_memory(n_devices: int = 1) -> int:
    """Measure the memory available to each of some devices, in bytes.

    On CPU this is what the machine has free, or less where a container or job is limited, of which
    each device has its part.
    """
    device = jax.local_devices()[0]
    statistics = None if device.platform == "cpu" else device.memory_stats()
    if statistics and "bytes_limit" in statistics:
        return statistics["bytes_limit"] - statistics.get("bytes_in_use", 0)
    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):  # no such limit, or "max"
        free = min(free, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return free * jax.process_count() // n_devices


def peak_memory() -> int:
    """Measure the most memory that this process has had resident so far, in bytes."""
    try:
        # Unlike getrusage's figure, this one does not start from the parent process's.
        status = Path("/proc/self/status").read_text().splitlines()
        line = next(line for line in status if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def training_memory(state: TrainState, batch_size: int) -> int:
    """Count what a training step of a model holds at least, in bytes.

    That is its state, a gradient of each weight, and four copies of a batch's states.

    Args:
        state: the training state, or its shapes.
        batch_size: images per step.
    """
    weights = _n_bytes(state.model)
    states = sum(_size(shape) for shape in state.model.state_shapes)
    return _n_bytes(state) + weights + 4 * 4 * batch_size * states


def _n_bytes(tree: PyTree) -> int:
    leaves = jax.tree.leaves(eqx.filter(tree, lambda leaf: hasattr(leaf, "dtype")))
    return sum(_size(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)


def _size(shape: Sequence[int]) -> int:
    return math.prod(int(length) for length in shape)


def _xla_flags() -> str:
    return os.environ.get("XLA_FLAGS", "")


def _processor() -> str:
    """Name this machine's kind of processor, instruction-set extensions included."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        described = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        described = platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(described.encode()).hexdigest()[:12]}"
