"""Data sets: what is packed is what the archives hold; batches are a fixed reshuffling."""

import gzip
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from conftest import archives_of
from hypothesis import given
from hypothesis import strategies as st
from idx import read_archives
from PIL import Image
from prepared_data import kill_when
from sklearn.datasets import load_digits as load_uci_digits

from bpc_cli.data.archives import GivenArchives, check_archives
from bpc_cli.data.datasets import load_dataset
from bpc_cli.data.examples import batch_indices
from bpc_cli.data.packing import open_packed, pack
from bpc_cli.data.tfds import PreparedSplits, download_is_reachable
from bpc_cli.errors import UserError


@pytest.fixture(autouse=True)
def no_standing_archives(monkeypatch):
    monkeypatch.delenv("BPC_MNIST_ARCHIVES", raising=False)


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


FILES = [
    *("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    *("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
]


@pytest.fixture
def packed_mnist(few_images, tmp_path) -> Path:
    """A data directory with a packed copy of (a few images by the name of) MNIST."""
    data_dir = tmp_path / "packed"
    shutil.copytree(few_images, data_dir)
    load_dataset("mnist", data_dir=data_dir)
    return data_dir


@pytest.mark.parametrize("name", ["mnist", "auto"])
@pytest.mark.parametrize(
    ("there", "message"),
    [
        (None, "lacks train-images-idx3-ubyte.gz, train-labels"),
        (["a.png"], "lacks train-images-idx3-ubyte.gz, train-labels"),
        (FILES[:3], "lacks t10k-labels-idx1-ubyte.gz: give the folder that holds"),
        (FILES, "train-images-idx3-ubyte.gz has the wrong checksum for mnist"),
    ],
)
def test_archives_that_are_given_are_looked_at_though_a_packed_copy_exists(
    name, there, message, packed_mnist, tmp_path
):
    folder = tmp_path / "given"
    if there is not None:
        folder.mkdir()
        for file in there:
            (folder / file).write_bytes(gzip.compress(b"other content"))
    with pytest.raises(UserError, match=re.escape(message)):
        load_dataset(name, data_dir=packed_mnist, archive_dir=str(folder))


def test_standing_archives_are_looked_at_where_they_are_needed(packed_mnist, tmp_path, monkeypatch):
    """BPC_MNIST_ARCHIVES is of the machine, not of the run."""
    monkeypatch.setenv("BPC_MNIST_ARCHIVES", str(tmp_path / "unplugged"))
    for name in ("auto", "mnist"):
        assert load_dataset(name, data_dir=packed_mnist).name == "mnist"
        with pytest.raises(UserError, match=r"BPC_MNIST_ARCHIVES=.*/unplugged lacks train-images"):
            load_dataset(name, data_dir=tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["mnist", "auto", "fashion_mnist", "cifar10"])
@pytest.mark.parametrize("files", [["a.png"], ["train/n01/a.png", "val/n01/b.png"], ["a/b/c/d/e"]])
def test_a_folder_of_other_files_is_no_data_directory(name, files, tmp_path):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="holds other files, and no prepared data set: it is where"):
        load_dataset(name, data_dir=tmp_path)
    with pytest.raises(UserError, match="is no folder: it is where"):
        load_dataset(name, data_dir=tmp_path / files[0])
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "there",
    [
        [],
        [".DS_Store"],
        ["downloads/extracted/"],
        ["other/1.0.0/dataset_info.json", "notes.txt"],
        ["other/config/1.0.0/dataset_info.json"],
        ["mnist/3.0.1.incomplete/", "downloads/"],  # by a process that was killed
        ["bpc_packed/other/manifest.json"],
    ],
)
def test_a_data_directory_is_new_empty_or_holds_prepared_data(there, tmp_path):
    for path in there:
        (tmp_path / "data" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / path).mkdir() if path.endswith("/") else (
            tmp_path / "data" / path
        ).touch()
    with pytest.raises(UserError, match="lacks train-images"):  # what is asked for next
        load_dataset("mnist", data_dir=tmp_path / "data", archive_dir=str(tmp_path))


def test_prepared_data_of_ones_own_are_read_from_tfdss_layout(few_images, tmp_path):
    shutil.copytree(few_images, tmp_path / "data")
    for name in ("mnist", "own/big"):
        data = load_dataset(name, data_dir=tmp_path / "data")
        assert (data.train_images.shape, data.test_images.shape) == ((70, 784), (20, 784))
    assert sorted(os.listdir(tmp_path / "data" / "bpc_packed")) == ["mnist", "own-big"]


@pytest.mark.parametrize("name", ["mnist", "own/big"])
@pytest.mark.parametrize("content", ["{}", "", "null", "[]", '{"name": 3}'])
def test_a_damaged_description_of_prepared_data_is_one_line(name, content, few_images, tmp_path):
    shutil.copytree(few_images / name, tmp_path / name)
    (description,) = (tmp_path / name).glob("*/dataset_info.json")
    description.write_text(content)
    with pytest.raises(UserError, match=f"TFDS cannot read {name} in .*: it must hold") as caught:
        load_dataset(name, data_dir=tmp_path)
    assert "\n" not in str(caught.value)


def packed_again(source: Path, target: Path, how: str) -> None:
    """Write an archive's content, or nearly, in another way."""
    published = source.read_bytes()
    content = bytearray(gzip.decompress(published))
    if how == "one byte differs":
        content[-1] ^= 1
    packed = {
        "cut": published[: len(published) // 2],
        "not gzip": bytes(content),
        "empty": b"",
        "much more": gzip.compress(bytes(60_000_000), 1),
        "other header": b"\x1f\x8b\x08\x08" + bytes(5) + b"\x03a\0" + deflated(published),
    }
    target.write_bytes(packed.get(how) or gzip.compress(bytes(content), 1) * (how != "empty"))


def deflated(published: bytes) -> bytes:
    """What follows a gzip file's header, which may have the file's name."""
    named = published[3] & 8
    return published[published.index(b"\0", 10) + 1 :] if named else published[10:]


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_archives_are_known_by_their_content(name, tmp_path):
    """As published, packed again (in Debian's package, say), or another folder's."""
    published = archives_of(name)
    check_archives(name, GivenArchives(published, "data.archive_dir"))
    for file in FILES:
        how = "other header" if "images" in file else "compressed anew"
        packed_again(published / file, tmp_path / file, how)
        assert (tmp_path / file).read_bytes() != (published / file).read_bytes()
    check_archives(name, GivenArchives(tmp_path, "data.archive_dir"))
    other = {"mnist": "fashion_mnist", "fashion_mnist": "mnist"}[name]
    with pytest.raises(UserError, match=f"ubyte.gz has the wrong checksum for {other}, and so has"):
        check_archives(other, GivenArchives(tmp_path, "data.archive_dir"))


@pytest.mark.parametrize("file", [FILES[1], FILES[2]])
@pytest.mark.parametrize("how", ["one byte differs", "cut", "not gzip", "empty", "much more"])
def test_an_archive_of_other_content_is_named(how, file, mnist_archives, tmp_path):
    for each in FILES:
        (tmp_path / each).symlink_to(mnist_archives / each)
    (tmp_path / file).unlink()
    packed_again(mnist_archives / file, tmp_path / file, how)
    with pytest.raises(UserError, match=f"{file} has the wrong checksum for mnist, and so has"):
        load_dataset("mnist", data_dir=tmp_path / "data", archive_dir=str(tmp_path))
    assert not (tmp_path / "data").exists()


def test_what_tfds_would_download_may_lie_in_a_folder(tmp_path):
    """Of data sets in other formats, TFDS itself checks what it finds there."""
    message = r"data\.archive_dir=.* lacks cifar-10-binary\.tar\.gz: give the folder"
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=message):
            load_dataset("cifar10", data_dir=tmp_path / "data", archive_dir=str(folder))
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"something else")
    with pytest.raises(UserError, match="has the wrong checksum for cifar10"):
        load_dataset("cifar10", data_dir=tmp_path / "data", archive_dir=str(tmp_path))


class Answers(http.server.BaseHTTPRequestHandler):
    """A host that answers requests for a whole file alone, if at all."""

    def do_GET(self):
        if "silent" in self.server.name:
            self.server.over.wait(60)
            return
        self.send_response(200 if self.server.name == "there" else 404)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("host", ["there", "without the file", "silent"])
@pytest.mark.parametrize("name", ["fashion_mnist", "kmnist", "mnist_corrupted"])
def test_a_download_is_reachable_if_its_host_answers_in_time(name, host, monkeypatch):
    """The host is a proxy here; those of these data sets are asked without encryption."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.name, server.over = host, threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    encrypted = any(url.startswith("https") for url in tfds.builder_cls(name).url_infos)
    expected = host == "there" and not encrypted
    assert download_is_reachable(name, 1.0 if host == "silent" else 30.0) == expected
    server.over.set()
    server.shutdown()
    server.server_close()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_prepared_data_are_what_the_archives_hold(name, request):
    """MNIST's archives are as published; Fashion-MNIST's were packed again."""
    data = load_dataset(name, data_dir=request.getfixturevalue(f"{name}_data"))
    originals = read_archives(archives_of(name))
    for split in ("train", "test"):
        counts = [
            Counter(zip(map(bytes, images), map(int, labels), strict=True))
            for images, labels in (
                (getattr(data, f"{split}_images"), getattr(data, f"{split}_labels")),
                (originals[f"{split}_images"], originals[f"{split}_labels"]),
            )
        ]
        assert counts[0] == counts[1]
    assert len(data.class_names) == 10


@pytest.fixture
def packed(tmp_path) -> Path:
    """A packed data set of a few images of 2×3 pixels."""
    rng = np.random.default_rng(0)
    arrays = {
        f"{split}_{what}": rng.integers(0, 2, shape, np.uint8)
        for split, n in (("train", 5), ("test", 4))
        for what, shape in (("images", (n, 6)), ("labels", n))
    }
    pack("tiny", PreparedSplits(arrays, "1.0.0", (2, 3, 1), ["a", "b"]), tmp_path / "tiny")
    return tmp_path / "tiny"


def test_every_flipped_byte_of_a_manifest_is_noticed(packed):
    assert open_packed(packed) is not None
    manifest = packed / "manifest.json"
    content = manifest.read_bytes()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << (position % 5)
        manifest.write_bytes(damaged)
        found = open_packed(packed)
        if found is not None:  # space between the entries
            assert json.loads(damaged) == json.loads(content)


@pytest.mark.parametrize(
    ("change", "is_accepted"),
    [
        ({}, True),
        ({"image_shape": [2, 2, 1]}, False),
        ({"image_shape": [-2, -3, 1]}, False),
        ({"class_names": None}, False),
        ({"more": 1}, False),
    ],
)
def test_a_manifest_of_an_earlier_release_has_no_checksum(change, is_accepted, packed):
    manifest = json.loads((packed / "manifest.json").read_text())
    del manifest["sha256"]
    (packed / "manifest.json").write_text(json.dumps(manifest | change))
    assert (open_packed(packed) is not None) == is_accepted


def test_a_second_start_maps_the_packed_arrays(few_images, tmp_path):
    """It needs neither TFDS nor archives."""
    shutil.copytree(few_images / "mnist", tmp_path / "mnist")
    first = load_dataset("mnist", data_dir=tmp_path)
    program = (
        "import sys; from bpc_cli.data.datasets import load_dataset\n"
        f"data = load_dataset('auto', data_dir={str(tmp_path)!r})\n"
        f"assert (data.name, data.fallback) == ('mnist', None)\n"
        f"assert list(data.train_labels) == {first.train_labels.tolist()}\n"
        "assert isinstance(data.train_images, __import__('numpy').memmap)\n"
        "assert 'tensorflow_datasets' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_damaged_packed_arrays_are_made_anew(few_images, tmp_path, capsys):
    shutil.copytree(few_images / "mnist", tmp_path / "mnist")
    load_dataset("mnist", data_dir=tmp_path)
    packed = tmp_path / "bpc_packed" / "mnist"
    whole = {path.name: path.read_bytes() for path in packed.iterdir()}
    labels = whole["test_labels.npy"]
    for damage in (labels + b"\0", labels[:-9] + bytes([labels[-9] ^ 1]) + labels[-8:], None):
        (packed / "test_labels.npy").unlink()
        if damage is not None:
            (packed / "test_labels.npy").write_bytes(damage)
        load_dataset("mnist", data_dir=tmp_path)
        assert capsys.readouterr().err.endswith("mnist is damaged: making it anew\n")
        assert {path.name: path.read_bytes() for path in packed.iterdir()} == whole


@pytest.mark.slow
def test_eight_processes_prepare_at_once_what_a_killed_one_left(mnist_data):
    outputs, errors, codes = zip(
        *json.loads((mnist_data.parent / "said.json").read_text()), strict=True
    )
    assert codes == (0,) * 8, errors
    assert len(set(outputs)) == 1
    assert "".join(errors).count("preparing mnist in ") == 1
    # Who comes when all is done need not wait.
    assert 1 <= "".join(errors).count("waiting for process ") <= 7
    assert os.listdir(mnist_data / "bpc_packed") == ["mnist"]


@pytest.mark.proof
def test_packing_that_is_killed_counts_for_nothing(mnist_data, mnist_archives, tmp_path):
    shutil.copytree(mnist_data / "mnist", tmp_path / "mnist")
    packed = tmp_path / "bpc_packed"
    kill_when(lambda: any(packed.glob(".mnist-*/train_images.npy")), tmp_path, mnist_archives)
    assert not (packed / "mnist").exists()
    loaded = load_dataset("mnist", data_dir=tmp_path)
    assert os.listdir(packed) == ["mnist"]
    whole = load_dataset("mnist", data_dir=mnist_data)
    np.testing.assert_array_equal(loaded.train_images, whole.train_images)
