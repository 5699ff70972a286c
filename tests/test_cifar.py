"""CIFAR: what is packed is what an archive of the original layout holds, byte for byte."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from tensorflow_datasets.core.download import checksums
from tensorflow_datasets.image_classification import cifar as tfds_cifar

from bpc_cli.data.checksums import file_checksum
from bpc_cli.data.datasets import load_dataset
from bpc_cli.errors import UserError

_LAYOUT = {
    "cifar10": {
        "stock": tfds_cifar.Cifar10,
        "folder": "cifar-10-batches-bin",
        "train": [f"data_batch_{i}.bin" for i in range(1, 6)],
        "test": ["test_batch.bin"],
        "names": {"batches.meta.txt": 10},
    },
    "cifar100": {
        "stock": tfds_cifar.Cifar100,
        "folder": "cifar-100-binary",
        "train": ["train.bin"],
        "test": ["test.bin"],
        "names": {"coarse_label_names.txt": 20, "fine_label_names.txt": 100},
    },
}


def write_archive(name: str, folder: Path) -> dict[str, np.ndarray]:
    """Write a small archive of CIFAR's layout; return its images, channels last, and labels."""
    layout, rng, arrays, files = _LAYOUT[name], np.random.default_rng(0), {}, {}
    for split in ("train", "test"):
        images, labels = [], []
        for file in layout[split]:
            pixels = rng.integers(0, 256, (4, 3, 32, 32), np.uint8)
            own = np.stack([rng.integers(0, n, 4) for n in layout["names"].values()], 1)
            rows = np.concatenate([own, pixels.reshape(4, -1)], axis=1)
            files[file] = rows.astype(np.uint8).tobytes()
            images.append(np.moveaxis(pixels, 1, -1).reshape(4, -1))
            labels.append(own[:, -1])
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = map(np.concatenate, (images, labels))
    for file, n_names in layout["names"].items():
        files[file] = "\n".join([f"{file[:4]}_{i}" for i in range(n_names)] + [""]).encode()
    binary = name.replace("cifar", "cifar-")
    with tarfile.open(folder / f"{binary}-binary.tar.gz", "w:gz") as tar:
        for file, content in files.items():
            member = tarfile.TarInfo(f"{layout['folder']}/{file}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return arrays


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_packed_cifar_is_what_its_archive_holds(name, tmp_path, monkeypatch):
    given = tmp_path / "archives"
    given.mkdir()
    originals = write_archive(name, given)
    (archive,) = given.iterdir()
    stock = _LAYOUT[name]["stock"]
    (url,) = stock.url_infos
    known = checksums.UrlInfo(
        size=archive.stat().st_size, checksum=file_checksum(archive), filename=archive.name
    )
    with pytest.raises(UserError, match=f"wrong checksum for {name}"):
        load_dataset(name, data_dir=tmp_path / "wrong", archive_dir=str(given))
    monkeypatch.setattr(stock, "url_infos", {url: known})
    data = load_dataset(name, data_dir=tmp_path / "data", archive_dir=str(given))
    assert data.image_shape == (32, 32, 3)
    *_, (file, n_names) = _LAYOUT[name]["names"].items()
    assert data.class_names == tuple(f"{file[:4]}_{i}" for i in range(n_names))
    for split in ("train", "test"):
        packed = [getattr(data, f"{split}_{what}") for what in ("images", "labels")]
        wanted = [originals[f"{split}_{what}"] for what in ("images", "labels")]
        # TFDS shuffles by a fixed rule; images are distinct, so sorting tells the pairs apart.
        rows, expected = (
            sorted((image.tobytes(), int(label)) for image, label in zip(*pair, strict=True))
            for pair in (packed, wanted)
        )
        assert rows == expected
