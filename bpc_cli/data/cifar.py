"""CIFAR's original archives as TFDS downloads them, read by Python alone."""

import io
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
        cifar, archive = self._cifar_info, dl_manager.download(self._cifar_info.url)
        for key, file in zip(cifar.label_keys, cifar.label_files, strict=True):
            self.info.features[key].names = _read(archive, cifar.prefix + file).decode().split()
        files = {"train": cifar.train_files, "test": cifar.test_files}
        return {split: self._examples(archive, split, files[split]) for split in files}

    def _examples(self, archive, split: str, files: Sequence[str]) -> Iterator[tuple[int, Any]]:
        keys, index = self._cifar_info.label_keys, 0
        for file in files:
            content = np.frombuffer(_read(archive, self._cifar_info.prefix + file), np.uint8)
            for record in content.reshape(-1, len(keys) + np.prod(_SHAPE)):
                labels, pixels = np.split(record, [len(keys)])
                image = io.BytesIO()
                Image.fromarray(pixels.reshape(_SHAPE).transpose(1, 2, 0)).save(image, "PNG")
                image.seek(0)
                example = dict(zip(keys, map(int, labels), strict=True))
                yield index, example | {"id": f"{split}_{index:05d}", "image": image}
                index += 1


def _read(archive, member: str) -> bytes:
    with tarfile.open(archive) as tar:
        file = tar.extractfile(member)
        if file is None:
            raise ValueError(f"{member} is no file")
        return file.read()
