"""How much memory the device has that networks are trained on, and how much a run has used."""

import resource
import sys
from pathlib import Path

import jax
import psutil


def device_memory() -> int:
    """Measure the memory available to JAX's default device, in bytes.

    On CPU this is what the machine has free, or less where a container or job is limited.
    """
    device = jax.devices()[0]
    statistics = None if device.platform == "cpu" else device.memory_stats()
    if statistics and "bytes_limit" in statistics:
        return statistics["bytes_limit"] - statistics.get("bytes_in_use", 0)
    free = psutil.virtual_memory().available
    try:
        return min(free, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no such limit, or "max"
        return free


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
