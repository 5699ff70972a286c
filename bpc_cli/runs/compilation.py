"""How JAX compiles: its persistent cache, and the precision of matrix products."""

import hashlib
import os
import platform
from pathlib import Path

import jax


def configure_jax(*, compilation_cache: bool, matmul_precision: str | None) -> None:
    """Set how this process compiles, before it does, and how many threads it runs on.

    On CPU, XLA takes $OMP_NUM_THREADS threads where that is set, or else one per core.

    Args:
        compilation_cache: whether to keep compiled programs on disk, so that the next process does
            not compile them again. They go to `cache_directory()`, in a folder for each type of
            processor: a program compiled for one may not run on another that shares the disk.
        matmul_precision: `jax.default_matmul_precision`; None is JAX's own default.
    """
    jax.config.update("jax_default_matmul_precision", matmul_precision)
    if threads := os.environ.get("OMP_NUM_THREADS"):  # joblib gives each process its share so
        os.environ.setdefault("NPROC", threads)  # which XLA reads, and the other not
    directory = cache_directory() / "jax" / _processor()
    if compilation_cache:
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError:  # a home that cannot be written is no reason to stop, or to warn each run
            compilation_cache = False
    jax.config.update("jax_enable_compilation_cache", compilation_cache)
    if compilation_cache:
        jax.config.update("jax_compilation_cache_dir", str(directory))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def cache_directory() -> Path:
    """Name the directory for what can be made again: `$BPC_CACHE_DIR` or the user's cache."""
    if chosen := os.environ.get("BPC_CACHE_DIR"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "bpc"


def _processor() -> str:
    """Name this machine's kind of processor, instruction-set extensions included."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        described = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        described = platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(described.encode()).hexdigest()[:12]}"
