"""Data sets: what is packed is what the archives hold; batches are a fixed reshuffling."""

import gzip
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from idx import read_archives
from PIL import Image
from sklearn.datasets import load_digits as load_uci_digits

from bpc_cli.data.datasets import batch_indices, load_dataset
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
    monkeypatch.setattr("bpc_cli.data.tfds.download_is_reachable", lambda *_: False)
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
def test_mnist_is_packed_once_from_the_archives(mnist_archives, tmp_path, capsys):
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
        "import sys; from bpc_cli.data.datasets import load_dataset\n"
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
    # Damaged copies are noticed and made anew: a byte more, a flipped bit, a lost file.
    whole = {path.name: path.read_bytes() for path in packed.iterdir()}
    labels = whole["test_labels.npy"]
    for damage in (labels + b"\0", labels[:-9] + bytes([labels[-9] ^ 1]) + labels[-8:], None):
        (packed / "test_labels.npy").unlink()
        if damage is not None:
            (packed / "test_labels.npy").write_bytes(damage)
        load_dataset("mnist", data_dir=tmp_path)
        assert capsys.readouterr().err.endswith("mnist is damaged: making it anew\n")
        assert {path.name: path.read_bytes() for path in packed.iterdir()} == whole


LOAD = """
import sys, hashlib
from bpc_cli.data.datasets import load_dataset
data = load_dataset("mnist", data_dir=sys.argv[1], archive_dir=sys.argv[2])
print(hashlib.sha256(data.train_images.tobytes() + data.test_labels.tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_eight_processes_prepare_one_empty_directory_at_once(mnist_archives, tmp_path):
    command = [sys.executable, "-c", LOAD, str(tmp_path / "data"), str(mnist_archives)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(8)]
    results = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0] * 8, results
    assert len({stdout for stdout, _ in results}) == 1
    said = "".join(stderr for _, stderr in results)
    assert said.count("preparing mnist in ") == 1
    assert said.count("waiting for process ") == 7
    assert os.listdir(tmp_path / "data" / "bpc_packed") == ["mnist"]


@pytest.mark.slow
def test_a_killed_preparation_counts_for_nothing(mnist_archives, tmp_path):
    """Killed while TFDS prepares, and while arrays are packed: the next process starts over."""
    data = tmp_path / "data"
    command = [sys.executable, "-c", LOAD, str(data), str(mnist_archives)]

    def kill_when(happens) -> None:
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            while not happens():
                assert process.poll() is None
                time.sleep(0.002)
            process.kill()

    kill_when(lambda: any((data / "mnist").glob("incomplete*")))
    kill_when(lambda: any((data / "bpc_packed").glob(".mnist-*/train_images.npy")))
    assert not (data / "bpc_packed" / "mnist").exists()
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert done.stderr == ""  # TFDS had finished its part
    assert os.listdir(data / "bpc_packed") == ["mnist"]
    again = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert again.stdout == done.stdout
