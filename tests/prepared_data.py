"""Data directories that tests share, prepared as users prepare them."""

import gzip
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

LOAD = """
import sys, hashlib
from bpc_cli.data.datasets import load_dataset
data = load_dataset("mnist", data_dir=sys.argv[1], archive_dir=sys.argv[2])
print(hashlib.sha256(data.train_images.tobytes() + data.test_labels.tobytes()).hexdigest())
"""


def prepare_mnist(archives: Path, directory: Path) -> None:
    """Prepare MNIST in `data`, and keep what each process said in `said.json`.

    One process is killed while it prepares; then eight at once find what it left.
    """
    data = directory / "data"
    kill_when(lambda: any((data / "mnist").glob("incomplete*")), data, archives)
    command = [sys.executable, "-c", LOAD, str(data), str(archives)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(8)]
    said = [[*process.communicate(timeout=300), process.returncode] for process in processes]
    (directory / "said.json").write_text(json.dumps(said))


def kill_when(happens: Callable[[], bool], data: Path, archives: Path) -> None:
    """Load MNIST in a process of its own, and kill that at a moment."""
    command = [sys.executable, "-c", LOAD, str(data), str(archives)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while not happens():
            assert process.poll() is None
            time.sleep(0.002)
        process.kill()


def prepare_fashion_mnist(archives: Path, directory: Path) -> None:
    """Prepare Fashion-MNIST in `data`, of archives whose content was compressed anew."""
    from bpc_cli.data.datasets import load_dataset

    anew = directory / "archives"
    anew.mkdir(parents=True)
    for archive in archives.glob("*.gz"):
        (anew / archive.name).write_bytes(gzip.compress(gzip.decompress(archive.read_bytes()), 1))
    load_dataset("fashion_mnist", data_dir=directory / "data", archive_dir=str(anew))


def prepare_few_images(directory: Path) -> None:
    """Let TFDS prepare `mnist` and `own/big`, of few random images each."""
    import numpy as np
    import tensorflow_datasets as tfds
    from PIL import Image

    class FewImages(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("3.0.1")  # MNIST's in TFDS

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(28, 28, 1)),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(70), "test": self._generate_examples(20)}

        def _generate_examples(self, n):
            images = np.random.default_rng(n).integers(256, size=(n, 28, 28, 1), dtype=np.uint8)
            for index, image in enumerate(images):
                encoded = io.BytesIO()
                Image.fromarray(image[..., 0]).save(encoded, format="PNG")
                encoded.seek(0)
                yield index, {"image": encoded, "label": index % 10}

    tfds.disable_progress_bar()
    big = tfds.core.BuilderConfig(name="big")
    for name, configs in {"mnist": [], "own": [big]}.items():
        members = {"__module__": __name__, "name": name, "BUILDER_CONFIGS": configs}
        builder = type(FewImages)(name, (FewImages,), members, skip_registration=True)
        builder(data_dir=directory, file_format="array_record").download_and_prepare()
