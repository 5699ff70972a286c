"""Preparing a TFDS data set without TensorFlow: download or archives → TFDS → uint8 arrays."""

import contextlib
import difflib
import gzip
import http.client
import io
import logging
import queue
import sys
import textwrap
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8
from PIL import Image
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tensorflow_datasets.datasets.svhn_cropped import svhn_cropped_dataset_builder as tfds_svhn
from tensorflow_datasets.image_classification import cifar as tfds_cifar
from tensorflow_datasets.image_classification import mnist as tfds_mnist
from tqdm import tqdm

from bpc_cli.data.archives import CHECKSUMS, SPLITS, GivenArchives, check_archives
from bpc_cli.data.cifar import CifarWithoutTensorFlow
from bpc_cli.data.packing import PreparedSplits
from bpc_cli.data.svhn import SvhnWithoutTensorFlow
from bpc_cli.errors import UserError

_MOST_HOSTS = 8  # that are asked whether they answer


def prepare(
    name: str, data_dir: Path, archives: GivenArchives | None, probe_seconds: float
) -> PreparedSplits:
    """Prepare a TFDS data set in `data_dir` unless it is there already, and read it whole.

    Raises:
        UserError: if the name is unknown to TFDS, an archive is missing or has the wrong
            checksum, the download cannot be reached within `probe_seconds`, or TFDS cannot prepare
            or read the data set without TensorFlow.
    """
    logging.getLogger("absl").setLevel(logging.ERROR)  # advice on OpenCV and the like
    builder: Any = _builder(name, data_dir, archives)
    if not builder.data_path.exists():
        if archives is not None:
            _check_files(builder, name, archives)
        elif not _any_answers(builder.url_infos or (), probe_seconds):
            raise UserError(
                f"{name} is not prepared in {data_dir} and its download cannot be reached: give "
                "data.archive_dir=FOLDER with the original archives, or use data=digits"
            )
        print(f"preparing {name} in {data_dir} (once) …", file=sys.stderr)
        _download_and_prepare(builder, name, archives)
    try:
        sources = {split: builder.as_data_source(split) for split in ("train", "test")}
        arrays: dict[str, np.ndarray] = {}
        for split, source in sources.items():
            arrays[f"{split}_images"], arrays[f"{split}_labels"] = _read(source, split)
        features: Any = builder.info.features
        height, width, channels = features["image"].shape
        class_names = list(features["label"].names)
    except Exception as error:  # TFDS raises many types, some misleading
        raise _unreadable(name, data_dir, error) from error
    return PreparedSplits(arrays, str(builder.info.version), (height, width, channels), class_names)


def check_files(name: str, given: GivenArchives, data_dir: Path) -> None:
    """Check that a folder holds what TFDS would download for a data set.

    Raises:
        UserError: if the name is unknown to TFDS, or the folder has none of the files.
    """
    _check_files(_builder(name, data_dir, given), name, given)


def download_is_reachable(name: str, seconds: float) -> bool:
    """Ask whether a host of a data set's downloads answers within `seconds`.

    True if TFDS registers no download for it.
    """
    return _any_answers(tfds.builder_cls(name).url_infos or (), seconds)


def _any_answers(urls: Iterable[str], seconds: float) -> bool:
    """Ask one address of each host, all at once; looking up the host's name counts, too."""
    of_hosts = {urllib.parse.urlsplit(url).netloc: url for url in urls if url.startswith("http")}
    if not of_hosts:
        return True  # TFDS alone knows the address, or there is nothing to download
    answers: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def probe(url: str) -> None:
        try:
            # `urlopen` would keep the first proxies that it sees. Headers alone are read, though
            # not every host answers a request for those alone.
            with urllib.request.build_opener().open(url, timeout=seconds):
                answers.put(True)
        except (OSError, ValueError, http.client.HTTPException):
            answers.put(False)

    probed = list(of_hosts.values())[:_MOST_HOSTS]
    for url in probed:  # a name look-up has no time-out, so each has a thread that may be left
        threading.Thread(target=probe, args=(url,), daemon=True).start()
    until = time.monotonic() + seconds
    with contextlib.suppress(queue.Empty):
        return any(answers.get(timeout=max(until - time.monotonic(), 0)) for _ in probed)
    return False


class _MnistWithoutTensorFlow:
    """A mix-in for TFDS's MNIST builders: the same features and version, read by Python alone."""

    URL: str
    ARCHIVES: Path | None  # a folder, checked; None: archives are downloaded

    def _split_generators(self, dl_manager):
        if self.ARCHIVES is not None:
            paths = {s: [self.ARCHIVES / file for file in files] for s, files in SPLITS.items()}
        else:
            urls = {
                split: [urllib.parse.urljoin(self.URL, file) for file in files]
                for split, files in SPLITS.items()
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


# What reads the archives in place of TensorFlow, and TFDS's own builder.
_READ_BY_PYTHON = {
    "mnist": (_MnistWithoutTensorFlow, tfds_mnist.MNIST),
    "fashion_mnist": (_MnistWithoutTensorFlow, tfds_mnist.FashionMNIST),
    "kmnist": (_MnistWithoutTensorFlow, tfds_mnist.KMNIST),
    "cifar10": (CifarWithoutTensorFlow, tfds_cifar.Cifar10),
    "cifar100": (CifarWithoutTensorFlow, tfds_cifar.Cifar100),
    "svhn_cropped": (SvhnWithoutTensorFlow, tfds_svhn.Builder),
}


def _builder(name: str, data_dir: Path, archives: GivenArchives | None) -> tfds.core.DatasetBuilder:
    try:
        return _make_builder(name, data_dir, archives)
    except Exception as error:  # TFDS raises many types, and reads what is prepared at once
        if any((data_dir / name).glob("*/dataset_info.json")):
            raise _unreadable(name, data_dir, error) from error
        close = difflib.get_close_matches(
            name, tfds.list_builders(with_community_datasets=False), n=3
        )
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise UserError(
            f"TFDS has no data set '{name}' that opens without TensorFlow{hint} "
            "(data=digits needs nothing)"
        ) from error


def _unreadable(name: str, data_dir: Path, error: Exception) -> UserError:
    return UserError(
        f"TFDS cannot read {name} in {data_dir} without TensorFlow ({_first_line(error)}): it must "
        "hold uint8 images of one size with labels, prepared as array_record; prepare it in "
        "another data.dir, or choose another data set"
    )


def _make_builder(
    name: str, data_dir: Path, archives: GivenArchives | None
) -> tfds.core.DatasetBuilder:
    if name in _READ_BY_PYTHON:
        reader, stock = _READ_BY_PYTHON[name]
        # Registering a second builder of one name raises; the class is named as the stock one
        # because TFDS derives the data set's name from it.
        folder = None if archives is None else archives.folder
        namespace = {"__module__": stock.__module__, "name": name, "ARCHIVES": folder}
        builder_class: Any = type(stock)(
            stock.__name__, (reader, stock), namespace, skip_registration=True
        )
        return builder_class(data_dir=data_dir, file_format="array_record")
    return tfds.builder(name, data_dir=data_dir, file_format="array_record")


def _download_and_prepare(
    builder: tfds.core.DatasetBuilder, name: str, archives: GivenArchives | None
) -> None:
    tfds.disable_progress_bar()
    manual_dir = None if archives is None else archives.folder.resolve()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(manual_dir=manual_dir)
            )
    except NonMatchingChecksumError as error:
        source = f"an archive in {archives.folder}" if archives else "a downloaded archive"
        raise UserError(
            f"{source} has the wrong checksum for {name}: fetch the original archives again"
        ) from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # a full disk or a missing permission: the system's own words say it best
        raise UserError(
            f"TFDS could not prepare {name} without TensorFlow: {_first_line(error)}"
        ) from error


def _check_files(builder: tfds.core.DatasetBuilder, name: str, given: GivenArchives) -> None:
    if name in CHECKSUMS:
        check_archives(name, given)
        return
    folder, given_by = given
    missing = _missing_files(builder, folder)
    if folder.is_dir() and not missing:
        return
    listed = ", ".join(missing[:4]) + (", …" if len(missing) > 4 else "")
    raise UserError(
        f"{given_by}={folder} lacks {listed or 'any archive'}: give the folder that holds the "
        f"original archives of {name}, or leave {given_by} out"
    )


def _missing_files(builder: tfds.core.DatasetBuilder, folder: Path) -> list[str]:
    """List what a folder lacks: of all that a reader needs, or else of what TFDS registers."""
    if needed := getattr(builder, "ALL_NEEDED", ()):
        return [file for file in needed if not (folder / file).is_file()]
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS is not None:  # files that TFDS does not register
        return []
    known = sorted({info.filename for info in (builder.url_infos or {}).values() if info.filename})
    return [] if any((folder / file).is_file() for file in known) else known or ["any archive"]


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
    return textwrap.shorten(lines[0], 200, placeholder=" …") if lines else type(error).__name__
