"""SVHN: what is packed is what archives of the original layout hold, byte for byte."""

import numpy as np
import pytest
import scipy.io
from tensorflow_datasets.core.download import checksums
from tensorflow_datasets.datasets.svhn_cropped.svhn_cropped_dataset_builder import Builder

from bpc_cli.data.checksums import file_checksum
from bpc_cli.data.datasets import load_dataset
from bpc_cli.errors import UserError


def test_packed_svhn_is_what_its_archives_hold(tmp_path, monkeypatch):
    given, rng, known, originals = tmp_path / "archives", np.random.default_rng(0), {}, {}
    given.mkdir()
    for split, n_images in {"train": 30, "test": 20}.items():
        images = rng.integers(0, 256, (32, 32, 3, n_images), np.uint8)
        digits = rng.permutation(np.arange(n_images) % 10)
        file = given / f"{split}_32x32.mat"
        labels = np.where(digits == 0, 10, digits).astype(np.uint8)  # as in the original
        scipy.io.savemat(file, {"X": images, "y": labels[:, None]}, do_compression=True)
        (url,) = (url for url in Builder.url_infos if url.endswith(f"/{file.name}"))
        known[url] = checksums.UrlInfo(file.stat().st_size, file_checksum(file), file.name)
        originals[split] = [images[..., i].tobytes() for i in range(n_images)], digits.tolist()

    with pytest.raises(UserError, match="wrong checksum for svhn_cropped"):
        load_dataset("svhn_cropped", data_dir=tmp_path / "wrong", archive_dir=str(given))
    monkeypatch.setattr(Builder, "url_infos", known)
    data = load_dataset("svhn_cropped", data_dir=tmp_path / "data", archive_dir=str(given))
    assert (data.image_shape, data.class_names) == ((32, 32, 3), tuple("0123456789"))
    for split, (images, digits) in originals.items():
        packed = zip(
            getattr(data, f"{split}_images"), getattr(data, f"{split}_labels"), strict=True
        )
        # TFDS shuffles by a fixed rule; images are distinct, so sorting tells the pairs apart.
        assert sorted((image.tobytes(), int(label)) for image, label in packed) == sorted(
            zip(images, digits, strict=True)
        )

    (given / "test_32x32.mat").unlink()
    with pytest.raises(UserError, match=r"lacks test_32x32\.mat: give the folder"):
        load_dataset("svhn_cropped", data_dir=tmp_path / "other", archive_dir=str(given))
