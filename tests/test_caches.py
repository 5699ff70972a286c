"""What is kept between runs is listed, and emptied where it is ours."""

import os
import re
import shutil
from pathlib import Path


def sizes_in(output: str) -> dict[str, tuple[float, Path]]:
    """Read what `--where` lists: MiB and place, by what it is."""
    lines = re.findall(r"^(.*?) +([\d.]+) MiB  (.*?)  \(", output, re.MULTILINE)
    return {name: (float(size), Path(path)) for name, size, path in lines}


def size_of(folder: Path) -> float:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 2**20


def test_caches_are_listed_and_ours_emptied(few_images, command, tmp_path):
    """A run after that makes what it needs again."""
    data = Path(shutil.copytree(few_images, tmp_path / "data"))
    here = {"TFDS_DATA_DIR": str(data), "BPC_CACHE_DIR": str(tmp_path / "cache")}
    run = ("bpc-train", "data=mnist", "model.width=4", "n_train_iters=2", "batch_size=2")
    assert command(*run, **here).returncode == 0
    before = sizes_in(command("bpc-train", "--where", **here).stdout)
    programs, packed = tmp_path / "cache" / "jax", data / "bpc_packed"
    assert before["compiled programs"] == (round(size_of(programs), 1), programs)
    assert before["packed data sets"] == (round(size_of(packed), 1), packed)
    theirs = round(size_of(data) - size_of(packed), 1)
    assert before["data sets as TFDS has them"] == (theirs, data)
    done = command("bpc-train", "--clear-cache", **here)
    assert (done.returncode, done.stderr) == (0, "")
    assert "MiB freed in" in done.stdout
    assert not any(programs.iterdir()) and not (packed / "mnist").exists()
    after = sizes_in(command("bpc-train", "--where", **here).stdout)
    assert after["data sets as TFDS has them"] == (theirs, data)
    assert command("bpc-train", "--clear-cache", **here).stdout.startswith("0.0 MiB freed")
    assert command(*run, **here).returncode == 0
    assert (packed / "mnist").exists()


def test_no_link_out_of_a_cache_is_followed(command, tmp_path):
    outside, cache = tmp_path / "outside", tmp_path / "cache"
    (outside / "folder").mkdir(parents=True)
    (outside / "folder" / "kept").write_text("kept")
    (cache / "jax").mkdir(parents=True)
    (cache / "jax" / "link").symlink_to(outside / "folder")
    here = {"TFDS_DATA_DIR": str(tmp_path / "data"), "BPC_CACHE_DIR": str(cache)}
    assert command("bpc-train", "--clear-cache", **here).returncode == 0
    assert not os.path.lexists(cache / "jax" / "link")
    (cache / "jax").rmdir()
    (cache / "jax").symlink_to(outside)
    done = command("bpc-train", "--clear-cache", **here)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "is a link, which is not followed" in done.stderr
    assert (outside / "folder" / "kept").read_text() == "kept"


def test_these_flags_stand_alone(command, tmp_path):
    for words in (("--where", "--clear-cahce"), ("model.width=4", "--clear-cache")):
        done = command("bpc-train", *words)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
        assert "--where and --clear-cache stand alone" in done.stderr
