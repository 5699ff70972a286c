"""How much memory the device has that networks are trained on."""

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
