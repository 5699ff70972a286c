"""A folder of images as a data set: a folder for each class, read once and packed.

The layout is `PATH/train/<class>/*` and `PATH/test/<class>/*`, or `PATH/<class>/*`, of which a
fifth of each class is for testing. Nothing in the folder is executed or changed, and no link out of
it is followed.
"""

import hashlib
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from bpc_cli.data.packing import (
    Packed,
    PreparedSplits,
    one_at_a_time,
    open_packed,
    pack,
)
from bpc_cli.errors import UserError, one_line
from bpc_cli.files import cache_directory, check_inside

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
_SPLITS = ("train", "test")
_TEST_FRACTION = 0.2
_MOST_CLASSES = 256  # labels have 8 bits
_NOT_IMAGES = {"thumbs.db", "desktop.ini"}  # which systems leave in folders


class Listing(NamedTuple):
    """The images of a folder.

    Attributes:
        folder: where they are.
        class_names: the classes, sorted.
        images: for each split the images' paths below the folder and the numbers of their classes,
            in an order that is fixed by the paths.
        digest: tells this listing from one of other paths, sizes or times of change.
    """

    folder: Path
    class_names: list[str]
    images: dict[str, list[tuple[str, int]]]
    digest: str


def load_image_folder(folder: Path, image_size: int, channels: int) -> Packed:
    """Load a folder of images; read and pack them first, unless that is done and none has changed.

    The packed copy lies in the user's cache. Its name is the folder's and a digest of its content,
    so that runs on other images are told apart.

    Args:
        folder: the folder.
        image_size: height and width that images get: scaled, and cut to a square about the middle.
        channels: 1 for grey, 3 for colour.

    Raises:
        UserError: if the folder is not laid out so, naming what is wrong; or an image cannot be
            read, naming it.
        OSError: if the cache cannot be written.
    """
    listing = list_images(folder)
    found = find_packed_listing(listing, image_size, channels)
    if found is None:
        packed = _place_of(folder, image_size, channels)
        with one_at_a_time(packed):
            found = find_packed_listing(listing, image_size, channels)  # made by another process
            if found is None:
                splits = read_images(listing, image_size, channels)
                pack(f"{_plain(folder)}_{_digest_of(splits)}", splits, packed)
                found = open_packed(packed)
    if found is None:
        raise UserError(f"{folder} changed while it was read: is another program writing there?")
    return found


def find_packed_listing(listing: Listing, image_size: int, channels: int) -> Packed | None:
    """Find the packed copy of a folder as it is now; None if it is not packed, or has changed."""
    found = open_packed(_place_of(listing.folder, image_size, channels))
    return found if found is not None and found.version == listing.digest else None


def find_packed_folder(name: str) -> Packed | None:
    """Find the packed copy of a folder of images by its data set's name."""
    begins = f"{name.rpartition('_')[0]}-"  # else every byte of every other folder would be checked
    for packed in sorted(folders_in_cache().glob("*")):
        found = open_packed(packed) if packed.name.startswith(begins) else None
        if found is not None and found.name == name:
            return found
    return None


def folders_in_cache() -> Path:
    """Name the folder of all packed folders of images."""
    return cache_directory() / "folders"


def list_images(folder: Path) -> Listing:
    """List the images of a folder, and their classes.

    Raises:
        UserError: if it is not laid out as a folder of images, naming what is wrong.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder data.dir={folder}")
    below = _folders_in(folder)
    has_splits = "train" in below
    if has_splits and "test" not in below:
        raise UserError(f"data.dir={folder} has a folder train, but no folder test beside it")
    classes = _folders_in(folder / "train") if has_splits else below
    if len(classes) < 2:
        raise UserError(
            f"data.dir={folder} must have a folder of images for each class, two at least, or such "
            "in the folders train and test"
        )
    if len(classes) > _MOST_CLASSES:
        raise UserError(f"data.dir={folder} has {len(classes)} classes: {_MOST_CLASSES} at most")
    found: dict[str, list[tuple[str, int]]] = {split: [] for split in _SPLITS}
    for number, name in enumerate(classes):
        if has_splits:
            for split in _SPLITS:
                own = _images_in(folder, f"{split}/{name}")
                found[split] += [(path, number) for path in own]
        else:
            own = _images_in(folder, name)
            n_test = max(1, round(_TEST_FRACTION * len(own)))
            found["test"] += [(path, number) for path in own[:n_test]]
            found["train"] += [(path, number) for path in own[n_test:]]
    _check_classes(folder, classes, found)
    images = {
        split: sorted(each, key=lambda image: _fixed(image[0])) for split, each in found.items()
    }
    return Listing(folder, classes, images, _listing_digest(folder, classes, images))


def read_images(listing: Listing, image_size: int, channels: int) -> PreparedSplits:
    """Read every image of a listing.

    Raises:
        UserError: naming an image that cannot be read.
    """
    print(f"packing the images of {listing.folder} (once) …", file=sys.stderr)
    arrays = {}
    for split, images in listing.images.items():
        pixels = np.empty((len(images), image_size * image_size * channels), np.uint8)
        bar = tqdm(images, f"reading {split} images", disable=None, leave=False, unit="image")
        for row, (path, _) in zip(pixels, bar, strict=True):
            row[:] = read_image(listing.folder, path, image_size, channels)
        arrays[f"{split}_images"] = pixels
        arrays[f"{split}_labels"] = np.array([label for _, label in images], np.uint8)
    shape = (image_size, image_size, channels)
    return PreparedSplits(arrays, listing.digest, shape, listing.class_names)


def read_image(
    folder: Path, path: str, image_size: int, channels: int
) -> UInt8[np.ndarray, " pixels"]:
    """Read one image, scaled such that a square about its middle has the size that is wanted.

    Raises:
        UserError: if it cannot be read.
    """
    from PIL import Image, ImageOps

    try:
        place = check_inside(folder, folder / path)
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(place, formats=FORMATS) as opened:
                picture = ImageOps.exif_transpose(opened)
                if picture.mode.startswith("I"):  # 16 bits, which a conversion would cut off
                    picture = Image.fromarray((np.asarray(picture) // 257).astype(np.uint8))
                picture = picture.convert("L" if channels == 1 else "RGB")
        if picture.size != (image_size, image_size):
            picture = ImageOps.fit(picture, (image_size, image_size), Image.Resampling.LANCZOS)
        return np.asarray(picture, np.uint8).ravel()
    except Exception as error:  # whatever Pillow raises of what is no image
        raise UserError(
            f"{folder / path} is no image that can be read ({one_line(error)}): take it away, or "
            "mend it"
        ) from error


def _check_classes(
    folder: Path, classes: Sequence[str], found: dict[str, list[tuple[str, int]]]
) -> None:
    for split, images in found.items():
        numbers = {number for _, number in images}
        missing = [name for number, name in enumerate(classes) if number not in numbers]
        if missing:
            raise UserError(f"data.dir={folder} has no {split} image of class {missing[0]}")
    strangers = (
        set(_folders_in(folder / "test")) - set(classes) if "train" not in classes else set()
    )
    if (folder / "train").is_dir() and strangers:
        raise UserError(f"data.dir={folder}: class {min(strangers)} is in test alone, not in train")


def _folders_in(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if _is_shown(entry) and entry.is_dir())


def _images_in(folder: Path, below: str) -> list[str]:
    """List the files of a class, in an order that is fixed by their paths.

    Raises:
        UserError: if a link leads out of the folder.
    """
    if not (folder / below).is_dir():
        return []
    with os.scandir(folder / below) as entries:
        shown = [entry for entry in entries if _is_shown(entry)]
    links = [entry.path for entry in shown if entry.is_symlink()]
    for path in (folder / below, *map(Path, links)):
        try:
            check_inside(folder, path)
        except OSError as error:
            raise UserError(f"{one_line(error)}: take it away") from error
    paths = [f"{below}/{entry.name}" for entry in shown]
    return sorted(paths, key=_fixed)


def _is_shown(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".") and entry.name.lower() not in _NOT_IMAGES


def _fixed(path: str) -> bytes:
    """Sort paths in an order that looks random, and is the same everywhere."""
    return hashlib.sha256(os.fsencode(path)).digest()


def _listing_digest(
    folder: Path, classes: Sequence[str], images: dict[str, list[tuple[str, int]]]
) -> str:
    digest = hashlib.sha256(repr(classes).encode())
    for path in (path for each in images.values() for path, _ in each):
        about = os.stat(folder / path)
        digest.update(
            f"{path!r} {about.st_size} {about.st_mtime_ns} {about.st_ctime_ns}\n".encode()
        )
    return digest.hexdigest()


def _digest_of(splits: PreparedSplits) -> str:
    digest = hashlib.sha256(repr((splits.class_names, splits.image_shape)).encode())
    for array in splits.arrays.values():
        digest.update(array.tobytes())
    return digest.hexdigest()[:8]


def _place_of(folder: Path, image_size: int, channels: int) -> Path:
    """Choose where the packed copy of a folder lies."""
    where = hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:8]
    return folders_in_cache() / f"{_plain(folder)}-{where}-{image_size}-{channels}"


def _plain(folder: Path) -> str:
    """Make a short name of a folder's, of letters and digits."""
    letters = "".join(c if c.isascii() and c.isalnum() else "_" for c in folder.absolute().name)
    return letters[:40] or "images"
