"""Folders of images as users have them, made of noise."""

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 8


def picture(seed: int, size: tuple[int, int] = (SIZE, SIZE), mode: str = "RGB") -> Image.Image:
    """Make an image of noise that no other seed makes."""
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))


def write_folder(folder: Path, n_images: int = 10, classes: tuple[str, ...] = ("b", "a")) -> Path:
    """Write a folder of so many images of each class."""
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(n_images):
            picture(100 * label + number).save(folder / name / f"{number}.png")
    return folder
