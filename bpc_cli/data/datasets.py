"""A data set as uint8 arrays: packed copies of TFDS data sets, and the embedded digits.

TensorFlow is never imported. TFDS downloads, checks and prepares a data set once; its images are
then packed into `.npy` files that later runs map into memory, without importing TFDS at all.
"""

import contextlib
import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from bpc_cli.data.archives import CHECKSUMS, GivenArchives, check_archives
from bpc_cli.data.packing import (
    ARRAYS,
    Packed,
    check_data_directory,
    check_in_background,
    is_prepared,
    one_at_a_time,
    open_packed,
    packed_directory,
    prepare_and_pack,
)
from bpc_cli.errors import UserError, one_line
from bpc_cli.files import expanded

PROBE_SECONDS = 5.0
IMAGE_FOLDER = "image_folder"
_FALLBACK_HELP = (
    "to train on MNIST, put the four original .gz archives in a folder and give "
    "data.archive_dir=FOLDER (or set BPC_MNIST_ARCHIVES), or run data=mnist once with a network"
)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """An image-classification data set.

    Attributes:
        name: the data set really used, such as "mnist".
        train_images, test_images: flattened uint8 images, a row each.
        train_labels, test_labels: class numbers as uint8.
        image_shape: height, width, channels.
        class_names: a name for each class.
        fallback: where another data set was wanted, one line that says why and what to do.
    """

    name: str
    train_images: UInt8[np.ndarray, "train image"]
    train_labels: UInt8[np.ndarray, " train"]
    test_images: UInt8[np.ndarray, "test image"]
    test_labels: UInt8[np.ndarray, " test"]
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    fallback: str | None = None

    @property
    def n_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)


def load_dataset(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    archive_dir: str | None = None,
    image_size: int = 32,
    channels: int = 3,
) -> Dataset:
    """Load a data set by name, preparing it first where that is needed and possible.

    Args:
        name: "digits" (embedded), "auto" (MNIST if it can be had within seconds, else digits),
            "image_folder", or any image-classification set of TFDS that can be prepared without
            TensorFlow.
        data_dir: TFDS's directory; None stands for `$TFDS_DATA_DIR` or `~/tensorflow_datasets`. Of
            "image_folder" the folder of images itself.
        archive_dir: a folder with the original archives, to be used instead of a download. None
            stands for `$BPC_MNIST_ARCHIVES` where MNIST has to be prepared.
        image_size, channels: of a folder's images, the size and channels that they get.

    Raises:
        UserError: if the data set cannot be had, or a folder that is given does not hold what it
            should hold, saying what to do.
    """
    if name == "digits":
        return load_digits()
    if name == IMAGE_FOLDER:
        return _load_image_folder(data_dir, image_size, channels)
    directory = data_directory(data_dir)
    if data_dir is not None:
        check_data_directory(directory)
    if name == "auto":
        return _load_mnist_or_digits(data_dir, archive_dir)
    archives = _standing_archives(name)
    if archive_dir is not None:
        archives = GivenArchives(_expanded(archive_dir), "data.archive_dir")
        _check_archives(name, archives, directory)  # even if the data set is prepared already
    packed = packed_directory(directory, name)
    dataset = _read_packed(packed, name)
    if dataset is None:
        with one_at_a_time(packed):
            dataset = _read_packed(packed, name)  # another process may just have made it
            if dataset is None:
                prepare_and_pack(name, directory, archives, packed, PROBE_SECONDS)
                dataset = _read_packed(packed, name)
    if dataset is None:
        raise UserError(f"{packed} changed while it was read: is another program writing there?")
    return dataset


def load_soon(name: str, *, data_dir: str | os.PathLike | None = None) -> None:
    """Begin in a thread what takes longest of loading a prepared data set.

    The arguments are `load_dataset`'s. What is wrong with them is left to it.
    """
    if name not in ("digits", IMAGE_FOLDER):
        with contextlib.suppress(UserError):
            directory = data_directory(data_dir)
            check_in_background(packed_directory(directory, "mnist" if name == "auto" else name))


def load_prepared(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    archive_dir: str | None = None,
    image_size: int = 32,
    channels: int = 3,
) -> Dataset:
    """Load the data set that `load_dataset` would load, prepare none, and write nothing.

    Raises:
        UserError: if it has to be prepared first.
    """
    if name == "digits":
        return load_digits()
    if name == IMAGE_FOLDER:
        return _load_image_folder(data_dir, image_size, channels, pack=False)
    wanted = "mnist" if name == "auto" else name
    packed = load_packed(wanted, data_dir=data_dir)
    if packed is not None:
        return packed
    if name == "auto" and not _mnist_can_be_had(data_dir, archive_dir):
        return _digits_instead()
    raise UserError(
        f"{wanted} is not prepared yet: 'bpc-train data={wanted} n_train_iters=1' prepares it"
    )


def load_packed(name: str, *, data_dir: str | os.PathLike | None = None) -> Dataset | None:
    """Load a data set's packed copy, every byte checked, and write nothing.

    Args:
        name: a data set of TFDS.
        data_dir: as in `load_dataset`.

    Returns:
        The data set; None where it has not been packed, or its packed copy is damaged.
    """
    return _read_packed(packed_directory(data_directory(data_dir), name), name)


def find_image_folder(name: str) -> Dataset | None:
    """Find a folder of images that has been packed, by its data set's name; None if it has not."""
    from bpc_cli.data.image_folder import find_packed_folder

    found = find_packed_folder(name)
    return None if found is None else _dataset_of(found, name)


def load_digits() -> Dataset:
    """Load scikit-learn's embedded handwritten digits in MNIST's geometry.

    1,797 real digits of 8×8, scaled to 20×20 (cubic) inside a 28×28 frame, in a fixed stratified
    split of 1,437 for training and 360 for testing.
    """
    from PIL import Image
    from sklearn.datasets import load_digits as load_uci_digits
    from sklearn.model_selection import train_test_split

    digits: Any = load_uci_digits()
    images = np.zeros((len(digits.images), 28, 28), np.uint8)
    for frame, digit in zip(images, digits.images, strict=True):
        small = Image.fromarray(np.round(digit * (255 / 16)).astype(np.uint8))
        frame[4:24, 4:24] = np.asarray(small.resize((20, 20), Image.Resampling.BICUBIC))
    train, test = train_test_split(
        np.arange(len(images)), test_size=0.2, random_state=0, stratify=digits.target
    )
    flat, labels = images.reshape(len(images), -1), digits.target.astype(np.uint8)
    return Dataset(
        "digits",
        flat[train],
        labels[train],
        flat[test],
        labels[test],
        (28, 28, 1),
        tuple(str(name) for name in digits.target_names),
    )


def data_directory(data_dir: str | os.PathLike | None = None) -> Path:
    """Name TFDS's directory: the one given, or `$TFDS_DATA_DIR`, or `~/tensorflow_datasets`.

    Raises:
        UserError: if the user has no home directory.
    """
    return _expanded(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def _expanded(folder: str | os.PathLike) -> Path:
    try:
        return expanded(folder)
    except OSError as error:
        raise UserError(one_line(error)) from error


def _standing_archives(name: str) -> GivenArchives | None:
    """Find where a user keeps a data set's archives for whenever they are needed."""
    folder = os.environ.get("BPC_MNIST_ARCHIVES") if name == "mnist" else None
    return GivenArchives(_expanded(folder), "BPC_MNIST_ARCHIVES") if folder else None


def _check_archives(name: str, archives: GivenArchives, data_dir: Path) -> None:
    if name in CHECKSUMS:
        check_archives(name, archives)
        return
    from bpc_cli.data import tfds

    tfds.check_files(name, archives, data_dir)


def _load_mnist_or_digits(data_dir: str | os.PathLike | None, archive_dir: str | None) -> Dataset:
    if _mnist_can_be_had(data_dir, archive_dir):
        return load_dataset("mnist", data_dir=data_dir, archive_dir=archive_dir)
    return _digits_instead()


def _mnist_can_be_had(data_dir: str | os.PathLike | None, archive_dir: str | None) -> bool:
    directory = data_directory(data_dir)
    if archive_dir or _standing_archives("mnist") or is_prepared(directory, "mnist"):
        return True
    from bpc_cli.data import tfds

    return tfds.download_is_reachable("mnist", PROBE_SECONDS)


def _digits_instead() -> Dataset:
    reason = (
        "MNIST is neither prepared nor reachable over the network, so this run uses the embedded "
        f"digits data set; {_FALLBACK_HELP}"
    )
    return dataclasses.replace(load_digits(), fallback=reason)


def _read_packed(packed: Path, data_set: str) -> Dataset | None:
    """Read a packed data set; None where it is missing or damaged."""
    found = open_packed(packed)
    return None if found is None else _dataset_of(found, data_set)


def _load_image_folder(
    folder: str | os.PathLike | None, image_size: int, channels: int, *, pack: bool = True
) -> Dataset:
    """Load a folder of images, packed first if need be and if that is wanted."""
    from bpc_cli.data import image_folder

    if folder is None:
        raise UserError("data=image_folder needs the folder: give data.dir=PATH")
    place = _expanded(folder)
    if not pack:
        listing = image_folder.list_images(place)
        found = image_folder.find_packed_listing(listing, image_size, channels)
        if found is None:
            raise UserError(
                f"the images of {place} are not packed yet: 'bpc-train data=image_folder "
                f"data.dir={place} n_train_iters=1' packs them"
            )
    else:
        found = image_folder.load_image_folder(place, image_size, channels)
    return _dataset_of(found, found.name)


def _dataset_of(found: Packed, data_set: str) -> Dataset:
    train_images, train_labels, test_images, test_labels = (found.arrays[name] for name in ARRAYS)
    return Dataset(
        name=data_set,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        image_shape=found.image_shape,
        class_names=found.class_names,
    )
