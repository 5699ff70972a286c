"""A folder of one's own images: packed once, as it is; and one line for what is wrong with it."""

import os
from pathlib import Path

import numpy as np
import pytest
from pictures import SIZE, picture, write_folder
from PIL import Image
from run_files import lines_of, summary_of

RUN = (
    *("bpc-train", "data=image_folder", "data.dir=photos", f"data.image_size={SIZE}"),
    *("model.width=8", "batch_size=4", "n_train_iters=4", "test_every=2"),
)


def test_a_packed_folder_is_its_files(tmp_path, monkeypatch):
    monkeypatch.setenv("BPC_CACHE_DIR", str(tmp_path / "cache"))
    from bpc_cli.data.datasets import load_dataset

    folder = write_folder(tmp_path / "photos")
    data = load_dataset("image_folder", data_dir=folder, image_size=SIZE)
    assert data.class_names == ("a", "b") and data.image_shape == (SIZE, SIZE, 3)
    assert (len(data.train_images), len(data.test_images)) == (16, 4)
    for labels in (data.train_labels, data.test_labels):
        assert np.bincount(labels).tolist() == [len(labels) // 2] * 2
    found = {}
    for images, labels in (
        (data.train_images, data.train_labels),
        (data.test_images, data.test_labels),
    ):
        found |= {
            image.tobytes(): data.class_names[label]
            for image, label in zip(images, labels, strict=True)
        }
    files = {
        np.asarray(Image.open(path)).tobytes(): path.parent.name for path in folder.glob("*/*.png")
    }
    assert found == files
    again = load_dataset("image_folder", data_dir=folder, image_size=SIZE)
    np.testing.assert_array_equal(again.train_images, data.train_images)


def test_folders_of_both_splits_are_taken_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setenv("BPC_CACHE_DIR", str(tmp_path / "cache"))
    from bpc_cli.data.datasets import load_dataset

    write_folder(tmp_path / "photos" / "train", 3)
    write_folder(tmp_path / "photos" / "test", 2)
    data = load_dataset("image_folder", data_dir=tmp_path / "photos", image_size=4, channels=1)
    assert (data.train_images.shape, data.test_images.shape) == ((6, 16), (4, 16))


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tiff", "webp"])
def test_images_of_any_size_and_format_are_cut_about_their_middle(suffix, tmp_path, monkeypatch):
    from bpc_cli.data.image_folder import read_image

    wide = np.zeros((SIZE, 3 * SIZE, 3), np.uint8)
    wide[:, SIZE : 2 * SIZE] = (200, 100, 50)  # the middle, all that is to be seen
    Image.fromarray(wide).save(tmp_path / f"wide.{suffix}", quality=100)
    read = read_image(tmp_path, f"wide.{suffix}", SIZE // 2, 3).reshape(-1, 3)
    np.testing.assert_allclose(read[SIZE : 2 * SIZE].mean(axis=0), [200, 100, 50], atol=12)
    grey = read_image(tmp_path, f"wide.{suffix}", SIZE // 2, 1)
    assert grey.shape == ((SIZE // 2) ** 2,)


def test_a_run_trains_on_it_and_is_evaluated(command, tmp_path):
    write_folder(tmp_path / "photos")
    scale = ("data.mean=[0.4,0.5,0.6]", "data.std=[0.5,0.4,0.3]")
    done = command(*RUN, *scale, "data.flip=true", "data.crop=2", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    assert "packing the images of photos (once)" in done.stderr
    name = summary_of(tmp_path / "run")["data"]["name"]
    assert name.startswith("photos_") and f"{name}: test accuracy" in done.stdout
    evaluated = command("bpc-eval", "run", "inference.n_steps=0")
    assert (evaluated.returncode, evaluated.stderr) == (0, "")
    again = command(*RUN, "hydra.run.dir=again")
    assert "packing" not in again.stderr
    picture(1000).save(tmp_path / "photos" / "a" / "0.png")  # another image of the same name
    more = (*scale, "data.flip=true", "data.crop=2", "n_train_iters=6")
    changed = command(*RUN, *more, "hydra.run.dir=run")
    assert (changed.returncode, "packing" in changed.stderr) == (1, True)
    assert "was trained on photos_" in changed.stderr


def test_a_run_with_crops_resumes_bit_for_bit(command, tmp_path):
    write_folder(tmp_path / "photos")
    more = ("data.flip=true", "data.crop=2")
    assert command(*RUN, *more, "hydra.run.dir=whole").returncode == 0
    for n_iters in (2, 4):
        words = (*RUN, *more, f"n_train_iters={n_iters}", "hydra.run.dir=parts")
        assert command(*words).returncode == 0
    assert lines_of(tmp_path / "parts") == lines_of(tmp_path / "whole")


def no_image(folder: Path) -> None:
    (folder / "a" / "notes.txt").write_text("no image")


def truncated(folder: Path) -> None:
    image = folder / "a" / "0.png"
    image.write_bytes(image.read_bytes()[:-40])


def a_bomb(folder: Path) -> None:
    Image.new("1", (20_000, 10_000)).save(folder / "a" / "bomb.png")


def a_link_out(folder: Path) -> None:
    os.symlink("/etc/hostname", folder / "a" / "link.png")


def one_class(folder: Path) -> None:
    for path in (folder / "b").iterdir():
        path.unlink()
    (folder / "b").rmdir()


def an_empty_class(folder: Path) -> None:
    (folder / "c").mkdir()


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (no_image, "notes.txt is no image that can be read"),
        (truncated, "0.png is no image that can be read"),
        (a_bomb, "bomb.png is no image that can be read"),
        (a_link_out, "link.png"),
        (one_class, "must have a folder of images for each class, two at least"),
        (an_empty_class, "has no train image of class c"),
    ],
)
def test_what_is_wrong_with_a_folder_is_one_line(harm, message, command, tmp_path):
    harm(write_folder(tmp_path / "photos"))
    done = command(*RUN)
    lines = [line for line in done.stderr.splitlines() if "packing the images" not in line]
    assert (done.returncode, len(lines)) == (1, 1), done.stderr
    assert message in lines[0]
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_no_folder_is_one_line(command):
    for words, message in (
        (("data=image_folder",), "give data.dir=PATH"),
        (RUN[1:], "there is no folder data.dir=photos"),
    ):
        done = command("bpc-train", *words)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
        assert message in done.stderr


def test_flips_are_mirrors_and_crops_are_shifts_of_reflected_images():
    import jax
    import jax.numpy as jnp

    from bpc_cli.data.augmentation import Crop, Flip

    images = jax.random.uniform(jax.random.PRNGKey(0), (40, 6, 5, 2))
    flipped = np.asarray(Flip(0.5)(images, jax.random.PRNGKey(1)))
    mirrored = np.asarray(images)[:, :, ::-1]
    is_flipped = (flipped == mirrored).all(axis=(1, 2, 3))
    assert 5 < is_flipped.sum() < 35
    np.testing.assert_array_equal(flipped[~is_flipped], np.asarray(images)[~is_flipped])
    always = Flip(1.0)
    twice = always(always(images, jax.random.PRNGKey(2)), jax.random.PRNGKey(3))
    np.testing.assert_array_equal(twice, images)
    cropped = np.asarray(Crop(1)(images, jax.random.PRNGKey(4)))
    padded = np.pad(np.asarray(images), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    for image, whole in zip(cropped, padded, strict=True):
        windows = [whole[y : y + 6, x : x + 5] for y in range(3) for x in range(3)]
        assert any((image == window).all() for window in windows)
    assert jnp.shape(cropped) == images.shape
