"""Preparing a TFDS data set without TensorFlow: download or archives → TFDS → uint8 arrays."""

import contextlib
import difflib
import gzip
import io
import logging
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8
from PIL import Image
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tensorflow_datasets.image_classification import mnist as tfds_mnist
from tqdm import tqdm

from bpc_cli.errors import UserError

_MNIST_FORMAT = {
    "mnist": tfds_mnist.MNIST,
    "fashion_mnist": tfds_mnist.FashionMNIST,
    "kmnist": tfds_mnist.KMNIST,
}
_ARCHIVES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}


class PreparedSplits(NamedTuple):
    """A data set's arrays by name, its TFDS version, and what its features say of it."""

    arrays: dict[str, np.ndarray]
    version: str
    image_shape: tuple[int, int, int]
    class_names: list[str]


def prepare(
    name: str, data_dir: Path, archive_dir: str | None, probe_seconds: float
) -> PreparedSplits:
    """Prepare a TFDS data set in `data_dir` unless it is there already, and read it whole.

    Raises:
        UserError: if the name is unknown to TFDS, an archive is missing or has the wrong
            checksum, the download cannot be reached within `probe_seconds`, or TFDS cannot prepare
            or read the data set without TensorFlow.
    """
    logging.getLogger("absl").setLevel(logging.ERROR)  # advice on OpenCV and the like
    builder: Any = _builder(name, data_dir)
    if archive_dir is not None:
        _check_archives_are_there(name, Path(archive_dir).expanduser())
    if not builder.data_path.exists():
        if archive_dir is None and not download_is_reachable(name, probe_seconds):
            raise UserError(
                f"{name} is not prepared in {data_dir} and its download cannot be reached: give "
                "data.archive_dir=FOLDER with the original .gz archives, or use data=digits"
            )
        print(f"preparing {name} in {data_dir} (once) …", file=sys.stderr)
        _download_and_prepare(builder, name, archive_dir)
    try:
        sources = {split: builder.as_data_source(split) for split in ("train", "test")}
        arrays: dict[str, np.ndarray] = {}
        for split, source in sources.items():
            arrays[f"{split}_images"], arrays[f"{split}_labels"] = _read(source, split)
        features: Any = builder.info.features
        height, width, channels = features["image"].shape
        class_names = list(features["label"].names)
    except Exception as error:  # TFDS raises many types, some misleading
        raise UserError(
            f"TFDS cannot read {name} in {data_dir} without TensorFlow ({_first_line(error)}): it "
            "must hold uint8 images of one size with labels, prepared as array_record; prepare it "
            "in another data.dir, or choose another data set"
        ) from error
    return PreparedSplits(arrays, str(builder.info.version), (height, width, channels), class_names)


def download_is_reachable(name: str, seconds: float) -> bool:
    """Ask whether the data set's host answers within `seconds`, name look-up included."""
    url = getattr(_MNIST_FORMAT.get(name), "URL", None)
    if url is None:
        return True  # TFDS alone knows the address
    answered = threading.Event()

    def probe() -> None:
        address = urllib.parse.urljoin(url, _ARCHIVES["test"][1])
        try:
            request = urllib.request.Request(address, method="HEAD")
            with urllib.request.urlopen(request, timeout=seconds):
                answered.set()
        except (OSError, ValueError):
            pass

    thread = threading.Thread(target=probe, daemon=True)  # a name look-up has no time-out
    thread.start()
    thread.join(seconds)
    return answered.is_set()


class _WithoutTensorFlow:
    """A mix-in for TFDS's MNIST builders: the same features and version, read by Python alone."""

    URL: str

    def _split_generators(self, dl_manager):
        urls = {
            split: [urllib.parse.urljoin(self.URL, file) for file in files]
            for split, files in _ARCHIVES.items()
        }
        paths = dl_manager.download(urls)
        return {split: self._generate_examples(*files) for split, files in paths.items()}

    def _generate_examples(self, image_path, label_path):
        images = _read_idx(image_path, header=16).reshape(-1, 28, 28)
        labels = _read_idx(label_path, header=8)
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            encoded = io.BytesIO()
            Image.fromarray(image).save(encoded, format="PNG")
            encoded.seek(0)
            yield index, {"image": encoded, "label": int(label)}


def _builder(name: str, data_dir: Path) -> tfds.core.DatasetBuilder:
    stock = _MNIST_FORMAT.get(name)
    if stock is not None:
        # Registering a second builder of one name raises; the class is named as the stock one
        # because TFDS derives the data set's name from it.
        namespace = {"__module__": stock.__module__, "name": name}
        builder_class: Any = type(stock)(
            stock.__name__, (_WithoutTensorFlow, stock), namespace, skip_registration=True
        )
        return builder_class(data_dir=data_dir, file_format="array_record")
    try:
        return tfds.builder(name, data_dir=data_dir, file_format="array_record")
    except Exception as error:
        close = difflib.get_close_matches(
            name, tfds.list_builders(with_community_datasets=False), n=3
        )
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise UserError(
            f"TFDS has no data set '{name}' that opens without TensorFlow{hint} "
            "(data=digits needs nothing)"
        ) from error


def _download_and_prepare(
    builder: tfds.core.DatasetBuilder, name: str, archive_dir: str | None
) -> None:
    tfds.disable_progress_bar()
    manual_dir = None if archive_dir is None else Path(archive_dir).expanduser().resolve()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(manual_dir=manual_dir)
            )
    except NonMatchingChecksumError as error:
        source = f"an archive in {archive_dir}" if archive_dir else "a downloaded archive"
        raise UserError(
            f"{source} has the wrong checksum for {name}: fetch the original archives again"
        ) from error
    except OSError:
        raise  # a full disk or a missing permission: the system's own words say it best
    except Exception as error:
        raise UserError(
            f"TFDS could not prepare {name} without TensorFlow: {_first_line(error)}"
        ) from error


def _check_archives_are_there(name: str, archive_dir: Path) -> None:
    if name not in _MNIST_FORMAT:
        return
    wanted = [file for files in _ARCHIVES.values() for file in files]
    missing = [file for file in wanted if not (archive_dir / file).is_file()]
    if missing:
        raise UserError(f"data.archive_dir={archive_dir} lacks {', '.join(missing)}")


def _read_idx(path, *, header: int) -> UInt8[np.ndarray, " bytes"]:
    with gzip.open(path) as file:
        return np.frombuffer(file.read(), np.uint8, offset=header)


def _read(source, split: str) -> tuple[UInt8[np.ndarray, "n image"], UInt8[np.ndarray, " n"]]:
    labels = np.empty(len(source), np.uint8)
    images: np.ndarray | None = None
    for i, example in enumerate(tqdm(source, desc=f"packing {split}", disable=None, leave=False)):
        image = np.asarray(example["image"], np.uint8).ravel()
        if images is None:
            images = np.empty((len(source), image.size), np.uint8)
        images[i], labels[i] = image, example["label"]
    if images is None:
        raise ValueError(f"the {split} split is empty")
    return images, labels


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
