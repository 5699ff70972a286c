"""Checkpoints: what is read is what was written, or it is refused."""

import json
import os
import pickle
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import learning_of, small_model

from bpc_cli.core.learning import TrainState, make_state
from bpc_cli.core.optimisers import make_optimiser
from bpc_cli.errors import UserError
from bpc_cli.runs.checkpoints.checkpoint import (
    copy_checkpoint,
    open_checkpoint,
    read_checkpoint,
    restore,
    save_checkpoint,
    write_atomically,
)

HEADER = {"config": {"seed": 0}, "iteration": 7}


def some_state(seed=0, sizes=(2, 3, 4)):
    learning = learning_of((1.0, 1.0), make_optimiser("adam", 1e-3))
    return make_state(small_model(seed, sizes, "relu"), learning)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "last.ckpt"
    save_checkpoint(path, some_state(), HEADER)
    return path


def test_a_state_comes_back_bit_for_bit(saved):
    checkpoint = read_checkpoint(saved)
    restored = restore(checkpoint, some_state(seed=1))
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(some_state()), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    assert checkpoint.header["iteration"] == 7
    assert checkpoint.header["config"] == {"seed": 0}


def test_part_of_a_state_can_be_restored(saved):
    wanted = some_state(seed=1)
    restored = restore(read_checkpoint(saved), TrainState(wanted.model, None, None))
    expected = some_state().model.generator[1].weight
    np.testing.assert_array_equal(restored.model.generator[1].weight, expected)


def test_special_values_survive(tmp_path):
    state = {"x": jnp.asarray([np.nan, np.inf, -0.0, 1e-45], jnp.float32), "n": jnp.asarray(3)}
    save_checkpoint(tmp_path / "c", state, HEADER)
    restored = restore(read_checkpoint(tmp_path / "c"), state)
    assert np.asarray(restored["x"]).tobytes() == np.asarray(state["x"]).tobytes()


def test_every_flipped_byte_is_noticed(saved):
    content = saved.read_bytes()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << (position % 8)
        saved.write_bytes(damaged)
        with pytest.raises(UserError):
            read_checkpoint(saved)


def test_every_truncation_and_a_trailing_byte_are_noticed(saved):
    content = saved.read_bytes()
    for damaged in [*(content[:length] for length in range(len(content))), content + b"\0"]:
        saved.write_bytes(damaged)
        with pytest.raises(UserError):
            read_checkpoint(saved)


@pytest.mark.parametrize("sizes", [(2, 3, 5), (2, 3, 3, 4), (2, 4, 4)])
def test_another_shape_is_refused(saved, sizes):
    with pytest.raises(UserError, match="another shape"):
        restore(read_checkpoint(saved), some_state(sizes=sizes))


def test_a_pickle_is_not_opened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    (tmp_path / "evil.ckpt").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError, match="not a bpc checkpoint"):
        read_checkpoint(tmp_path / "evil.ckpt")
    assert not (tmp_path / "executed").exists()


def test_sizes_in_a_header_are_not_believed(saved):
    checkpoint = read_checkpoint(saved)
    arrays = json.loads(json.dumps(checkpoint.header["arrays"]))
    arrays[0]["shape"] = [2**40, 2**20]
    swollen = checkpoint._replace(header=checkpoint.header | {"arrays": arrays})
    with pytest.raises(UserError, match="do not fill"):
        restore(swollen, some_state())


def test_a_newer_format_is_named(saved):
    saved.write_bytes(saved.read_bytes().replace(b"checkpoint 2 ", b"checkpoint 9 ", 1))
    with pytest.raises(UserError, match="format 9, this version of bpc reads up to 2"):
        read_checkpoint(saved)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="there is no checkpoint at"):
        read_checkpoint(tmp_path / "nowhere")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_copy_onto_itself_leaves_nothing_behind(saved, tmp_path):
    for _ in range(2):
        copy_checkpoint(saved, tmp_path / "best.ckpt")
    assert sorted(os.listdir(tmp_path)) == ["best.ckpt", "last.ckpt"]


def test_a_copy_is_not_changed_by_the_next_save(saved, tmp_path):
    best = tmp_path / "best.ckpt"
    copy_checkpoint(saved, best)
    before = best.read_bytes()
    save_checkpoint(saved, some_state(seed=5), HEADER)
    assert best.read_bytes() == before != saved.read_bytes()


@pytest.fixture
def run_directory(tmp_path):
    """A run directory with checkpoints of iterations 10 (previous), 20 (best) and 30 (last)."""
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    for name, iteration in (("previous", 10), ("best", 20), ("last", 30)):
        save_checkpoint(folder / f"{name}.ckpt", some_state(), HEADER | {"iteration": iteration})
    return tmp_path / "run"


def test_a_run_directory_stands_for_its_checkpoint(run_directory):
    for which, iteration in (("last", 30), ("best", 20)):
        checkpoint, warning = open_checkpoint(run_directory, which)
        assert (checkpoint.header["iteration"], warning) == (iteration, None)
    by_file, _ = open_checkpoint(run_directory / "checkpoints" / "previous.ckpt")
    assert by_file.header["iteration"] == 10


def test_the_newest_good_checkpoint_stands_in_for_a_damaged_last(run_directory):
    folder = run_directory / "checkpoints"
    (folder / "last.ckpt").write_bytes((folder / "last.ckpt").read_bytes()[:-1])
    checkpoint, warning = open_checkpoint(run_directory)
    assert checkpoint.header["iteration"] == 20
    assert "last.ckpt is missing or damaged: this is best.ckpt, of iteration 20" in warning
    (folder / "best.ckpt").unlink()
    assert open_checkpoint(run_directory)[0].header["iteration"] == 10
    with pytest.raises(UserError, match=r"no checkpoint at .*best"):
        open_checkpoint(run_directory, "best")
    (folder / "previous.ckpt").write_bytes(b"")
    with pytest.raises(UserError, match=r"last\.ckpt is damaged"):
        open_checkpoint(run_directory)


@pytest.mark.parametrize("target", ["/dev/zero", "elsewhere.ckpt"])
def test_a_link_out_of_a_run_directory_is_not_followed(run_directory, target):
    for checkpoint in (run_directory / "checkpoints").iterdir():
        checkpoint.rename(run_directory.parent / "elsewhere.ckpt")
    (run_directory / "checkpoints" / "last.ckpt").symlink_to(run_directory.parent / target)
    with pytest.raises(UserError, match="leads out of its run directory"):
        open_checkpoint(run_directory)


def test_a_device_is_not_read(tmp_path):
    with pytest.raises(UserError, match="no checkpoint at"):
        read_checkpoint(Path("/dev/zero"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="no checkpoint at"):
        read_checkpoint(tmp_path / "pipe")
