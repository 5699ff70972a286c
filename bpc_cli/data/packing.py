"""Packed copies of data sets: `.npy` files that runs map into memory, every byte checked."""

import contextlib
import functools
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bpc_cli.files import locked

MANIFEST = "manifest.json"
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


class Packed(NamedTuple):
    """A packed data set.

    Attributes:
        arrays: images and labels of both splits, mapped into memory, by name.
        image_shape: height, width and channels.
        class_names: a name for each class.
    """

    arrays: dict[str, np.ndarray]
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]


def packed_directory(data_dir: Path, name: str) -> Path:
    """Choose where a data set's packed copy lies."""
    return data_dir / "bpc_packed" / name.replace("/", "-")


@contextlib.contextmanager
def one_at_a_time(packed: Path) -> Iterator[None]:
    """Let one process prepare a data set, and others wait; a failed one leaves no new folder."""
    made = [folder for folder in (packed.parent, packed.parent.parent) if not folder.exists()]

    def wait(owner: str) -> None:
        print(f"waiting for {owner}, which prepares {packed.name} …", file=sys.stderr)

    try:
        with locked(packed.with_name(f".{packed.name}.lock"), wait):
            yield
    finally:
        for folder in made:
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()


def prepare_and_pack(
    name: str, data_dir: Path, archive_dir: str | None, packed: Path, probe_seconds: float
) -> None:
    """Prepare by TFDS, then write the packed arrays under a temporary name and rename them."""
    from bpc_cli.data import tfds

    if packed.exists():
        print(f"{packed} is damaged: making it anew", file=sys.stderr)
    splits = tfds.prepare(name, data_dir, archive_dir, probe_seconds)
    for unfinished in packed.parent.glob(f".{packed.name}-????????"):  # by a process since killed
        shutil.rmtree(unfinished, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{packed.name}-", dir=packed.parent))
    try:
        for array in ARRAYS:
            np.save(partial / f"{array}.npy", splits.arrays[array])
        manifest = {
            "name": name,
            "tfds_version": splits.version,
            "image_shape": splits.image_shape,
            "class_names": splits.class_names,
            "files": {f"{array}.npy": _describe(partial / f"{array}.npy") for array in ARRAYS},
        }
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1))
        partial.chmod(0o755)
        if packed.exists():
            shutil.rmtree(packed)
        partial.rename(packed)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _describe(path: Path) -> dict[str, int | str]:
    status = path.stat()
    return {"bytes": status.st_size, "sha256": _digest(path, status.st_size, status.st_mtime_ns)}


@functools.cache
def _digest(path: Path, _size: int, _changed: int) -> str:
    """Compute a file's SHA-256, once in a process unless the file changes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_packed(packed: Path) -> Packed | None:
    """Map packed arrays, every byte checked; None where they are missing or damaged."""
    try:
        manifest = json.loads((packed / MANIFEST).read_text())
        for array in ARRAYS:
            if manifest["files"][f"{array}.npy"] != _describe(packed / f"{array}.npy"):
                raise ValueError(array)
        arrays = {
            array: np.load(packed / f"{array}.npy", mmap_mode="r", allow_pickle=False)
            for array in ARRAYS
        }
        height, width, channels = manifest["image_shape"]
        class_names = tuple(str(name) for name in manifest["class_names"])
    except PermissionError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return Packed(arrays, (height, width, channels), class_names)
