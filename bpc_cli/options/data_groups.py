"""The typed schema of the options of data: which images, and what happens to them."""

import dataclasses
from typing import Any

from bpc_cli.options import names
from bpc_cli.options.declare import option


@dataclasses.dataclass
class DataConfig:
    name: str = option("data set: auto, digits, image_folder, or TFDS's name (mnist, kmnist, …)")
    dir: str | None = option(
        "TFDS data directory, or image_folder's; null: $TFDS_DATA_DIR or ~/tensorflow_datasets",
        may_change=True,
    )
    archive_dir: str | None = option(
        "folder with the data set's original archives, instead of a download",
        may_change=True,
    )
    mean: Any = option(  # OmegaConf has no type for "a number or a list of numbers"
        "mean subtracted from pixels; one number, or a list with one for each channel",
        "[0, 1] pixels",
        per_channel=True,
    )
    std: Any = option(
        "standard deviation that pixels are divided by; one number, or one for each channel",
        "[0, 1] pixels",
        above=0,
        per_channel=True,
    )


@dataclasses.dataclass
class TrainDataConfig(DataConfig):
    image_size: int = option(
        "image_folder: height and width that images are scaled and cut to",
        "pixels",
        at_least=1,
        at_most=4096,
        before=32,
    )
    channels: int = option(
        "image_folder: 1 for grey, 3 for colour", at_least=1, at_most=3, before=3
    )
    noise: float = option(
        "augmentation: standard deviation of Gaussian noise on training images",
        "[0, 1] pixels",
        at_least=0,
        before=0.0,
    )
    flip: bool = option("augmentation: mirror every other training image, at random", before=False)
    crop: int = option(
        "augmentation: pad training images by so much, and cut them at random places",
        "pixels",
        at_least=0,
        at_most=100,
        before=0,
    )
    shift: int = option(
        "augmentation: largest random shift of training images",
        "pixels",
        at_least=0,
        at_most=100,
        before=0,
    )
    shift_fraction: float = option(
        "augmentation: fraction of training images that are shifted",
        at_least=0,
        at_most=1,
        before=1.0,
        was="data.shift_share",
    )
    augmentation: dict[str, Any] = option(
        "other augmentations by name, such as {noise: 0.1}",
        takes_any_keys=True,
        before={},
    )
    label_fraction: float = option(
        "fraction of training labels that are known; 0: unsupervised",
        at_least=0,
        at_most=1,
        before=1.0,
    )
    unlabelled: str = option(
        "training images whose label is not known: infer it, or train on the others alone",
        choices=names.UNLABELLED,
        before="infer",
    )
    n_train: int | None = option(
        "size of the training set, its first images; null: all", "images", at_least=1, before=None
    )
    n_validation: int = option(
        "size of the validation set, the last training images; 0: the test set is used",
        "images",
        at_least=0,
        before=0,
    )
