"""Data sets: what is packed is what the archives hold; batches are a fixed reshuffling."""

import gzip
import json
import os
import shutil
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from idx import read_archives
from PIL import Image
from sklearn.datasets import load_digits as load_uci_digits

from bpc_cli.data import batch_indices, load_dataset
from bpc_cli.errors import UserError


def test_digits_are_the_embedded_ones_in_mnists_geometry():
    data = load_dataset("digits")
    assert data.train_images.shape == (1437, 784)
    assert data.test_images.shape == (360, 784)
    assert data.image_shape == (28, 28, 1)
    assert data.train_images.dtype == np.uint8
    counts = np.bincount(np.concatenate([data.train_labels, data.test_labels]))
    np.testing.assert_array_equal(counts, np.bincount(load_uci_digits().target))
    framed = np.concatenate([data.train_images, data.test_images]).reshape(-1, 28, 28)
    assert framed[:, :4].max() == framed[:, 24:].max() == framed[:, :, :4].max() == 0
    shrunk = Image.fromarray(framed[0, 4:24, 4:24]).resize((8, 8), Image.Resampling.BOX)
    originals = load_uci_digits().images * (255 / 16)
    nearest = np.abs(originals - np.asarray(shrunk, float)).mean(axis=(1, 2)).min()
    assert nearest < 20


def test_digits_split_is_fixed():
    a, b = load_dataset("digits"), load_dataset("digits")
    np.testing.assert_array_equal(a.test_images, b.test_images)


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))),
    st.integers(1, 60),
)
def test_every_epoch_visits_each_example_at_most_once(seed, sizes, n_steps):
    n_examples, batch_size = sizes
    rows = batch_indices(seed, 1, n_steps, n_examples, batch_size)
    assert rows.shape == (n_steps, batch_size)
    per_epoch = n_examples // batch_size
    for start in range(0, n_steps, per_epoch):
        visited = rows[start : start + per_epoch].ravel()
        assert len(set(visited.tolist())) == len(visited)
        assert visited.min() >= 0 and visited.max() < n_examples


@given(st.integers(1, 30), st.integers(1, 30))
def test_batches_do_not_depend_on_where_chunks_are_cut(first, length):
    whole = batch_indices(3, 1, 60, 20, 4)
    part = batch_indices(3, first, first + length - 1, 20, 4)
    np.testing.assert_array_equal(part, whole[first - 1 : first - 1 + length])


def test_epochs_and_seeds_are_shuffled_differently():
    rows = batch_indices(0, 1, 10, 50, 10)
    assert not np.array_equal(rows[:5], rows[5:])
    assert not np.array_equal(rows, batch_indices(1, 1, 10, 50, 10))


def test_auto_falls_back_to_digits_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("bpc_cli.preparation.download_is_reachable", lambda *_: False)
    data = load_dataset("auto", data_dir=tmp_path)
    assert data.name == "digits"
    assert data.fallback is not None and "data.archive_dir" in data.fallback
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("name", "hint"), [("mnits", "did you mean mnist"), ("qqqq", "no data")])
def test_an_unknown_data_set_is_named(name, hint, tmp_path):
    with pytest.raises(UserError, match=hint):
        load_dataset(name, data_dir=tmp_path)


def test_missing_archives_are_named(tmp_path):
    with pytest.raises(UserError, match=r"lacks train-images-idx3-ubyte\.gz"):
        load_dataset("mnist", data_dir=tmp_path / "data", archive_dir=str(tmp_path))


def test_archives_with_a_wrong_checksum_are_refused(tmp_path):
    names = ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"]
    for name in names:
        (tmp_path / f"{name}-ubyte.gz").write_bytes(gzip.compress(b"not MNIST"))
    data_dir = tmp_path / "data"
    with pytest.raises(UserError, match="wrong checksum"):
        load_dataset("mnist", data_dir=data_dir, archive_dir=str(tmp_path))
    with pytest.raises(UserError, match="wrong checksum"):
        load_dataset("auto", data_dir=data_dir, archive_dir=str(tmp_path))
    assert not (data_dir / "bpc_packed").exists()


@pytest.mark.slow
def test_mnist_is_packed_once_from_the_archives(mnist_archives, tmp_path):
    data = load_dataset("mnist", data_dir=tmp_path, archive_dir=str(mnist_archives))
    archives = read_archives(mnist_archives)
    for split in ("train", "test"):
        packed_images, packed_labels = (
            getattr(data, f"{split}_images"),
            getattr(data, f"{split}_labels"),
        )
        packed = Counter(zip(map(bytes, packed_images), map(int, packed_labels), strict=True))
        original = Counter(
            zip(
                map(bytes, archives[f"{split}_images"]),
                map(int, archives[f"{split}_labels"]),
                strict=True,
            )
        )
        assert packed == original
    assert data.class_names == tuple("0123456789")

    # A second start maps the packed arrays: no TFDS, no archives.
    program = (
        "import sys; from bpc_cli.data import load_dataset\n"
        f"data = load_dataset('auto', data_dir={str(tmp_path)!r})\n"
        "assert data.name == 'mnist' and data.fallback is None\n"
        "assert isinstance(data.train_images, __import__('numpy').memmap)\n"
        "assert 'tensorflow_datasets' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)

    # Prepared by TFDS but no longer packed: packed again, in the same order.
    first = np.array(data.train_labels[:100])
    shutil.rmtree(tmp_path / "bpc_packed")
    again = load_dataset("mnist", data_dir=tmp_path)
    np.testing.assert_array_equal(again.train_labels[:100], first)

    packed = tmp_path / "bpc_packed" / "mnist"
    manifest = json.loads((packed / "manifest.json").read_text())
    assert manifest["name"] == "mnist"
    with (packed / "test_labels.npy").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(UserError, match="damaged: remove that folder"):
        load_dataset("mnist", data_dir=tmp_path)
