"""The data set that an evaluation tests on."""

import contextlib
import dataclasses

from bpc_cli.data.archives import CHECKSUMS, holds_archives
from bpc_cli.data.datasets import (
    IMAGE_FOLDER,
    Dataset,
    find_image_folder,
    load_dataset,
    load_packed,
)
from bpc_cli.errors import UserError
from bpc_cli.options.evaluation_schema import EvalConfig
from bpc_cli.options.schema import TrainConfig
from bpc_cli.runs.checkpoints.checkpoint import Checkpoint


def load_test_set(config: EvalConfig, trained: TrainConfig, checkpoint: Checkpoint) -> Dataset:
    """Load the data set to test on: the one that is asked for, or the one trained on.

    Of its test images the first `data.n_test` alone are kept, where that is asked for.

    Raises:
        UserError: if it cannot be had, or its images or classes are not those trained on.
    """
    name = config.data.name
    if name is None:
        name = str(checkpoint.header.get("data_set"))
    dataset = find_dataset(name, config, trained)
    fits = list(dataset.image_shape) == checkpoint.header.get("image_shape") and len(
        dataset.class_names
    ) == len(checkpoint.header["class_names"])
    if not fits:
        raise UserError(
            f"{checkpoint.path} was trained on {checkpoint.header.get('data_set')}: the images or "
            f"classes of {dataset.name} do not fit it"
        )
    n_test = config.data.n_test
    return dataclasses.replace(
        dataset, test_images=dataset.test_images[:n_test], test_labels=dataset.test_labels[:n_test]
    )


def find_dataset(name: str, config: EvalConfig, trained: TrainConfig) -> Dataset:
    """Find a data set in the folders that are asked for, else in the run's, else in the usual ones.

    The run may be a stranger's. So from its data directory a packed copy alone is read, nothing is
    written there, and of its archives those alone are taken whose checksums are known.

    Raises:
        UserError: if it cannot be had.
    """
    asked = config.data
    if name == IMAGE_FOLDER:
        size, channels = trained.data.image_size, trained.data.channels
        return load_dataset(name, data_dir=asked.dir, image_size=size, channels=channels)
    if trained.data.name == IMAGE_FOLDER and asked.dir is None:
        if (packed := find_image_folder(name)) is not None:
            return packed
        raise UserError(
            f"the images of {name} are not packed here: give data.name=image_folder and their "
            "folder by data.dir=PATH"
        )
    if asked.dir or asked.archive_dir or name in ("digits", "auto"):
        return load_dataset(name, data_dir=asked.dir, archive_dir=asked.archive_dir)
    for folder in (trained.data.dir, None):
        with contextlib.suppress(UserError, OSError):  # another user's folder, or no name of one
            if (packed := load_packed(name, data_dir=folder)) is not None:
                return packed
    archives = trained.data.archive_dir
    if not (archives and name in CHECKSUMS and holds_archives(archives)):
        archives = None
    try:
        return load_dataset(name, archive_dir=archives)
    except UserError as error:
        if trained.data.dir is None:
            raise
        raise UserError(f"{error}; the run's data.dir={trained.data.dir} has it no more") from error
