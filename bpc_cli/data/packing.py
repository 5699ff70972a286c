"""Packed copies of data sets: `.npy` files that runs map into memory, every byte checked."""

import contextlib
import hashlib
import json
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bpc_cli.data.archives import GivenArchives
from bpc_cli.data.checksums import file_checksum
from bpc_cli.errors import UserError
from bpc_cli.files import JsonObject, locked, parse_finite_json

MANIFEST = "manifest.json"
_PACKED = "bpc_packed"
_WHAT_DATA_DIR_IS = (
    "it is where data sets are kept once they are prepared, so give a new or an empty folder, or "
    "leave data.dir out"
)
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
_FILES = tuple(f"{array}.npy" for array in ARRAYS)
_CHECKSUM = "sha256"
_ENTRIES = {"name", "tfds_version", "image_shape", "class_names", "files"}


class Packed(NamedTuple):
    """A packed data set.

    Attributes:
        arrays: images and labels of both splits, mapped into memory, by name.
        image_shape: height, width and channels.
        class_names: a name for each class.
        name: the data set's.
        version: what tells it from an earlier or later one of its name.
    """

    arrays: dict[str, np.ndarray]
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    name: str
    version: str


class PreparedSplits(NamedTuple):
    """A data set's arrays by name, its version, and what is known of its images."""

    arrays: dict[str, np.ndarray]
    version: str
    image_shape: tuple[int, int, int]
    class_names: list[str]


def check_data_directory(data_dir: Path) -> None:
    """Check that a folder is for prepared data sets: new, empty, or with such data in it.

    Raises:
        UserError: if something else is there.
    """
    if not data_dir.exists():
        return
    if not data_dir.is_dir():
        raise UserError(f"data.dir={data_dir} is no folder: {_WHAT_DATA_DIR_IS}")
    in_it = [entry for entry in data_dir.iterdir() if not entry.name.startswith(".")]
    ours = any((data_dir / folder).is_dir() for folder in (_PACKED, "downloads"))
    # TFDS's layout: name/version or name/configuration/version.
    if not in_it or ours or _any_file(data_dir, "*/*/dataset_info.json"):
        return
    if not _any_file(data_dir, "*/*/*/dataset_info.json"):
        raise UserError(
            f"data.dir={data_dir} holds other files, and no prepared data set: "
            f"{_WHAT_DATA_DIR_IS}; for images of your own, choose data=image_folder"
        )


def _any_file(folder: Path, pattern: str) -> bool:
    return any(path.is_file() for path in folder.glob(pattern))


def packed_below(data_dir: Path) -> Path:
    """Name the folder of all packed data sets."""
    return data_dir / _PACKED


def packed_directory(data_dir: Path, name: str) -> Path:
    """Choose where a data set's packed copy lies."""
    return packed_below(data_dir) / name.replace("/", "-")


def is_prepared(data_dir: Path, name: str) -> bool:
    """Tell whether a data set has been packed in a folder, or prepared there by TFDS."""
    by_tfds = ("*/dataset_info.json", "*/*/dataset_info.json")
    packed = packed_directory(data_dir, name) / MANIFEST
    return packed.is_file() or any(_any_file(data_dir / name, pattern) for pattern in by_tfds)


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
    name: str,
    data_dir: Path,
    archives: GivenArchives | None,
    packed: Path,
    probe_seconds: float,
) -> None:
    """Prepare a data set by TFDS, and pack it in place of a damaged copy."""
    from bpc_cli.data import tfds

    if packed.exists():
        print(f"{packed} is damaged: making it anew", file=sys.stderr)
    pack(name, tfds.prepare(name, data_dir, archives, probe_seconds), packed)


def pack(name: str, splits: PreparedSplits, packed: Path) -> None:
    """Write packed arrays and their manifest under a temporary name, and rename them at once."""
    packed.parent.mkdir(parents=True, exist_ok=True)
    for unfinished in packed.parent.glob(f".{packed.name}-????????"):  # by a process since killed
        shutil.rmtree(unfinished, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{packed.name}-", dir=packed.parent))
    try:
        for array in ARRAYS:
            np.save(partial / f"{array}.npy", splits.arrays[array])
        content = {
            "name": name,
            "tfds_version": splits.version,
            "image_shape": splits.image_shape,
            "class_names": splits.class_names,
            "files": {f"{array}.npy": _describe(partial / f"{array}.npy") for array in ARRAYS},
        }
        manifest = content | {_CHECKSUM: _digest_of(content)}
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1))
        partial.chmod(0o755)
        if packed.exists():
            shutil.rmtree(packed)
        partial.rename(packed)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _describe(path: Path) -> dict[str, int | str]:
    return {"bytes": path.stat().st_size, "sha256": file_checksum(path)}


def _digest_of(content: JsonObject) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read_manifest(path: Path) -> JsonObject:
    """Read a manifest; one of an earlier release has the other entries and no checksum.

    Raises:
        ValueError: if it is damaged.
    """
    manifest = parse_finite_json(path.read_bytes())
    digest = manifest.pop(_CHECKSUM, None)
    is_earlier = digest is None and manifest.keys() == _ENTRIES
    if not is_earlier and digest != _digest_of(manifest):
        raise ValueError("another checksum")
    return manifest


def _check_fit(arrays: Mapping[str, np.ndarray], n_pixels: int) -> None:
    """Check that images have the pixels that a manifest says, and a label each.

    Raises:
        ValueError: if they do not.
    """
    for split in ("train", "test"):
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        if images.shape != (len(labels), n_pixels) or labels.shape != (len(images),):
            raise ValueError(split)
        if not images.dtype == labels.dtype == np.uint8:
            raise ValueError(split)


def check_in_background(packed: Path) -> None:
    """Start to compute the checksums of packed arrays in a thread, which opening them waits for."""

    def check() -> None:
        for file in filter(Path.is_file, (packed / name for name in _FILES)):
            with contextlib.suppress(OSError):  # opening them says so
                file_checksum(file)

    threading.Thread(target=check, daemon=True).start()


def open_packed(packed: Path) -> Packed | None:
    """Map packed arrays, every byte checked; None where they are missing or damaged."""
    try:
        if not all((packed / file).is_file() for file in (MANIFEST, *_FILES)):
            return None  # a pipe would keep its reader waiting
        manifest = _read_manifest(packed / MANIFEST)
        for array in ARRAYS:
            if manifest["files"][f"{array}.npy"] != _describe(packed / f"{array}.npy"):
                raise ValueError(array)
        arrays = {
            array: np.load(packed / f"{array}.npy", mmap_mode="r", allow_pickle=False)
            for array in ARRAYS
        }
        height, width, channels = manifest["image_shape"]
        class_names = tuple(str(name) for name in manifest["class_names"])
        if min(height, width, channels) < 1:
            raise ValueError("image_shape")
        _check_fit(arrays, height * width * channels)
    except PermissionError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    name, version = str(manifest["name"]), str(manifest["tfds_version"])
    return Packed(arrays, (height, width, channels), class_names, name, version)
