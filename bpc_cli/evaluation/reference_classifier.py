"""The classifier that samples are judged by: trained here by backpropagation, and kept.

It is an MLP of two hidden layers of 256 rectified units, trained for five epochs on a data set's
training images. One that another machine trains may differ in its last bits, and so its checksum.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from bpc_cli.core.algorithms import inference_weights, learning_weights
from bpc_cli.core.architectures import Mlp
from bpc_cli.core.inference import Inference
from bpc_cli.core.learning import Learning, make_state
from bpc_cli.core.models import Model, make_model
from bpc_cli.core.optimisers import make_optimiser
from bpc_cli.core.training import Chunk, Examples, Training, train_chunk
from bpc_cli.data.datasets import Dataset
from bpc_cli.data.examples import batch_indices
from bpc_cli.evaluation.metrics import accuracy
from bpc_cli.evaluation.parts import in_parts
from bpc_cli.files import cache_directory, write_atomically
from bpc_cli.options.algorithms import ALGORITHMS

_SETTING = {"width": 256, "depth": 3, "rate": 1e-3, "epochs": 5, "batch": 100, "seed": 0}
_CHUNK = 100  # iterations of a compiled chunk


class Judged(NamedTuple):
    """What a classifier makes of images.

    Attributes:
        features: the activities of its last hidden layer, rectified.
        probabilities: of each class, by a softmax of what it predicts.
    """

    features: Float[np.ndarray, "images features"]
    probabilities: Float[np.ndarray, "images classes"]


class ReferenceClassifier(NamedTuple):
    """A classifier, and what tells it from others.

    Attributes:
        model: its model, of [0, 1] pixels.
        checksum: the first digits of its weights' SHA-256.
        test_accuracy: in percent, on the data set's test images.
    """

    model: Model
    checksum: str
    test_accuracy: float

    def judge(
        self, images: Float[np.ndarray, "images pixels"] | UInt8[np.ndarray, "images pixels"]
    ) -> Judged:
        """Compute features and classes' probabilities of images; uint8 or [0, 1] pixels."""
        return Judged(*in_parts(lambda part: _judge(self.model, part), [images], "judging images"))


def reference_classifier(dataset: Dataset) -> ReferenceClassifier:
    """Take a data set's classifier from the cache, or train it and keep it.

    It is kept by a hash of its setting and of every training image and label; what is kept is
    weights alone, and nothing of it is executed. A file that cannot be read is made again.

    Raises:
        OSError: if the user has no home directory, and $BPC_CACHE_DIR is not set.
    """
    digest = hashlib.sha256(json.dumps([_SETTING, dataset.n_classes, dataset.image_shape]).encode())
    for array in (dataset.train_images, dataset.train_labels):
        digest.update(array.tobytes())
    path = cache_directory() / "classifiers" / f"{digest.hexdigest()[:32]}.npz"
    leaves, tree = jax.tree.flatten(eqx.filter_eval_shape(lambda: _make(dataset)).amortiser)
    weights = _read(path, leaves)
    if weights is None:
        weights = [np.asarray(leaf) for leaf in jax.tree.leaves(_train(dataset).amortiser)]
        content = io.BytesIO()
        np.savez(content, *weights)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content.getvalue())
    layers = jax.tree.unflatten(tree, [jnp.asarray(each) for each in weights])
    model = eqx.tree_at(lambda m: m.amortiser, _make(dataset), layers)
    checksum = hashlib.sha256(b"".join(each.tobytes() for each in weights)).hexdigest()
    predicted = model.classify(dataset.test_images)
    return ReferenceClassifier(model, checksum[:12], accuracy(predicted, dataset.test_labels))


def _read(path: Path, leaves: Sequence[Any]) -> list[np.ndarray] | None:
    """Read the weights that are kept in a file; None where they are not these."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            weights = [kept[name] for name in kept.files]
    except (OSError, EOFError, ValueError, zipfile.BadZipFile):
        return None
    wanted = [(leaf.shape, leaf.dtype) for leaf in leaves]
    return weights if [(each.shape, each.dtype) for each in weights] == wanted else None


def _make(dataset: Dataset) -> Model:
    return make_model(
        Mlp(_SETTING["width"], _SETTING["depth"], "relu", use_bias=True),
        jax.random.PRNGKey(_SETTING["seed"]),
        dataset.n_classes,
        dataset.image_shape,
        label_loss="cross_entropy",
    )


def _train(dataset: Dataset) -> Model:
    images, labels = dataset.train_images, dataset.train_labels
    algorithm = ALGORITHMS["bp"]
    training = Training(
        Inference(inference_weights(algorithm, 1.0, 1.0), make_optimiser("sgd", 0.0), 0),
        Learning(
            learning_weights(algorithm, 1.0, 1.0),
            make_optimiser("adam", _SETTING["rate"]),
            by_backpropagation=True,
        ),
        (),
        jax.random.PRNGKey(_SETTING["seed"]),
    )
    size = min(_SETTING["batch"], len(images))
    n_steps = _SETTING["epochs"] * (len(images) // size)
    rows = batch_indices(_SETTING["seed"], 1, n_steps, len(images), size)
    examples = Examples(jnp.asarray(images), jnp.asarray(labels))
    state = make_state(_make(dataset), training.learning)
    for first in range(0, n_steps, _CHUNK):
        n_done = min(_CHUNK, n_steps - first)
        part = np.resize(rows[first : first + _CHUNK], (_CHUNK, size))
        chunk = Chunk(examples, jnp.asarray(part), jnp.asarray(n_done), training)
        state, *_ = train_chunk(chunk, state)
    return state.model


@eqx.filter_jit
def _judge(model: Model, images: Array) -> tuple[Array, Array]:
    states = model.to_states(images)
    label, last, *_ = jax.vmap(model.feed_up)(states)
    return jax.nn.relu(last), jax.nn.softmax(label)
