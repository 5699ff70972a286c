"""CIFAR's original archives as TFDS downloads them, read by Python alone."""

import io
import math
import tarfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

_SHAPE = (3, 32, 32)  # a record is its labels, a byte each, and then its image


class CifarWithoutTensorFlow:
    """A mix-in for TFDS's CIFAR builders: the same features, version and order of examples."""

    info: Any
    _cifar_info: Any

    def _split_generators(self, dl_manager):
        cifar = self._cifar_info
        files = {"train": cifar.train_files, "test": cifar.test_files}
        wanted = [*cifar.label_files, *files["train"], *files["test"]]
        contents = _read_members(dl_manager.download(cifar.url), cifar.prefix, wanted)
        for key, file in zip(cifar.label_keys, cifar.label_files, strict=True):
            self.info.features[key].names = contents[file].decode().split()
        return {
            split: self._examples(split, [contents[file] for file in files[split]])
            for split in files
        }

    def _examples(self, split: str, contents: Sequence[bytes]) -> Iterator[tuple[int, Any]]:
        keys = self._cifar_info.label_keys
        records = np.frombuffer(b"".join(contents), np.uint8)
        for index, record in enumerate(records.reshape(-1, len(keys) + math.prod(_SHAPE))):
            labels, pixels = np.split(record, [len(keys)])
            image = io.BytesIO()
            Image.fromarray(pixels.reshape(_SHAPE).transpose(1, 2, 0)).save(image, "PNG")
            image.seek(0)
            example = dict(zip(keys, map(int, labels), strict=True))
            yield index, example | {"id": f"{split}_{index:05d}", "image": image}


def _read_members(archive, prefix: str, wanted: Sequence[str]) -> dict[str, bytes]:
    """Read files of an archive in one pass: each look back would decompress it from its start."""
    contents = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            name = member.name.removeprefix(prefix)
            if name in wanted and (file := tar.extractfile(member)) is not None:
                contents[name] = file.read()
    if missing := [name for name in wanted if name not in contents]:
        raise ValueError(f"the archive lacks {', '.join(missing)}")
    return contents
