"""Reading MNIST's archives in their own order, independently of the package."""

import gzip
from pathlib import Path

import numpy as np

_FILES = {"train": "train", "test": "t10k"}


def read_archives(folder: Path) -> dict[str, np.ndarray]:
    """Read the four archives: flattened uint8 images and labels."""
    arrays = {}
    for split, prefix in _FILES.items():
        labels = gzip.decompress((folder / f"{prefix}-labels-idx1-ubyte.gz").read_bytes())
        images = gzip.decompress((folder / f"{prefix}-images-idx3-ubyte.gz").read_bytes())
        arrays[f"{split}_labels"] = np.frombuffer(labels[8:], np.uint8)
        arrays[f"{split}_images"] = np.frombuffer(images[16:], np.uint8).reshape(-1, 784)
    return arrays
