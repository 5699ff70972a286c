"""SVHN's original archives of cropped digits as TFDS downloads them, read by Python alone."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.io
from PIL import Image

_FILES = {split: f"{split}_32x32.mat" for split in ("train", "test")}


class SvhnWithoutTensorFlow:
    """A mix-in for TFDS's SVHN builder: the same features, version and order of examples.

    TFDS's third split, "extra", is left out: it is a download of 1.3 GB that nothing here reads.
    """

    url_infos: Any
    ALL_NEEDED = tuple(_FILES.values())  # `data.archive_dir` must hold them all

    def _split_generators(self, dl_manager):
        urls = {
            split: url
            for split, file in _FILES.items()
            for url, info in self.url_infos.items()
            if info.filename == file
        }
        archives = dl_manager.download(urls)
        return {split: self._examples(split, archives[split]) for split in _FILES}

    def _examples(self, split: str, archive) -> Iterator[tuple[int, Any]]:
        arrays = scipy.io.loadmat(archive, variable_names=["X", "y"])
        labels = arrays["y"].ravel() % 10  # the digit 0 is saved as 10
        for index, (pixels, label) in enumerate(
            zip(np.moveaxis(arrays["X"], -1, 0), labels, strict=True)
        ):
            image = io.BytesIO()
            Image.fromarray(pixels).save(image, "PNG")
            image.seek(0)
            yield index, {"id": f"{split}_{index:06d}", "image": image, "label": int(label)}
