"""Our own training, by the library's compiled chunks of steps; layers have no biases."""

import jax
import jax.numpy as jnp
import numpy as np
import serving
from serving import Data

from bpc_cli.core.algorithms import inference_weights, learning_weights
from bpc_cli.core.architectures import Mlp
from bpc_cli.core.inference import Inference
from bpc_cli.core.learning import Learning, make_state
from bpc_cli.core.models import make_model, predict_classes
from bpc_cli.core.optimisers import make_optimiser
from bpc_cli.core.training import Chunk, Examples, Training, train_chunk
from bpc_cli.options.algorithms import ALGORITHMS

CHUNK = 50
ALGORITHM = {"discriminative": "discpc", "bidirectional": "bpc"}


class Ours:
    """A model of this package that learns MNIST."""

    def __init__(self, data: Data, setting: str):
        self.examples = jax.device_put(Examples(data.train_images, data.train_labels))
        self.test_images = data.test_images
        self.training = make_training(setting)

    def reset(self) -> None:
        network = Mlp(serving.SIZES[1], len(serving.SIZES) - 1, "leaky_relu")
        model = make_model(network, jax.random.PRNGKey(0), serving.SIZES[-1], (28, 28, 1))
        self.state = make_state(model, self.training.learning)

    def train(self, rows: np.ndarray) -> None:
        for first in range(0, len(rows), CHUNK):
            part = rows[first : first + CHUNK]
            filled = np.resize(part, (CHUNK, part.shape[1]))  # so that all chunks are one program
            indices, n_steps = jax.device_put((filled, np.int32(len(part))))
            chunk = Chunk(self.examples, indices, n_steps, self.training)
            self.state, *_ = train_chunk(chunk, self.state)
        jax.block_until_ready(self.state)

    def predict(self) -> np.ndarray:
        return np.asarray(predict_classes(self.state.model, self.test_images))


def make_training(setting: str) -> Training:
    """Make a setting's way of training."""
    algorithm = ALGORITHMS[ALGORITHM[setting]]
    alphas = jnp.asarray(serving.FORWARD_WEIGHT), jnp.asarray(serving.BACKWARD_WEIGHT)
    sgd = make_optimiser("sgd", serving.ACTIVITY_RATE)
    adam = make_optimiser("adam", serving.WEIGHT_RATE)
    inference = Inference(
        inference_weights(algorithm, *alphas), sgd, serving.N_INFERENCE_STEPS, algorithm.init
    )
    learning = Learning(learning_weights(algorithm, *alphas), adam)
    return Training(inference, learning, (), jax.random.PRNGKey(0))


if __name__ == "__main__":
    serving.serve(Ours, ("bpc-cli", "jax"))
