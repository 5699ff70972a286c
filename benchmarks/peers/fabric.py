"""FabricPC, by the jitted step of its own training; layers have biases, its default.

Not quite as the others: a node's activation comes after its linear map, z - φ(W z + b).
"""

import itertools

import jax
import numpy as np
import optax
import serving
from fabricpc import GraphStructure, initialize_params, setup_jax
from fabricpc.core.activations import IdentityActivation, LeakyReLUActivation
from fabricpc.core.inference import InferenceSGD
from fabricpc.core.initializers import KaimingInitializer
from fabricpc.core.topology import Edge
from fabricpc.graph_assembly import TaskMap, graph
from fabricpc.graph_initialization import FeedforwardStateInit, initialize_graph_state
from fabricpc.nodes import IdentityNode, Linear
from fabricpc.training.trainer import _make_step
from serving import Data

ADAM = optax.adam(serving.WEIGHT_RATE)


class Fabric:
    """A graph that learns MNIST."""

    def __init__(self, data: Data, setting: str):
        setup_jax()
        self.images = serving.unit_pixels(data.train_images)
        self.labels = data.train_labels.astype(np.int32)  # the step makes them one-hot
        self.test_images = serving.unit_pixels(data.test_images)
        self.structure, self.key = make_structure(), jax.random.PRNGKey(0)
        # What `train` compiles, anew at every call. The public `make_train_step` returns all states
        # as well, and takes twice as long.
        self.step = _make_step(self.structure, ADAM, algorithm="pc", with_state=False, donate=True)
        self.feed = jax.jit(self._feed)

    def reset(self) -> None:
        self.params = initialize_params(self.structure, self.key)
        self.adam_state = ADAM.init(self.params)

    def train(self, rows: np.ndarray) -> None:
        for row in rows:
            batch = {"x": self.images[row], "y": self.labels[row]}
            # Nothing is random after a feedforward initialisation, so one key does for all steps.
            self.params, self.adam_state, *_ = self.step(
                self.params, self.adam_state, batch, self.key
            )
        jax.block_until_ready(self.params)

    def predict(self) -> np.ndarray:
        return np.asarray(self.feed(self.params, self.test_images)).argmax(axis=1)

    def _feed(self, params, images):
        clamps = {"pixels": images}
        state = initialize_graph_state(
            self.structure, len(images), self.key, clamps=clamps, params=params
        )
        return state.nodes["label"].z_mu


def make_structure() -> GraphStructure:
    """Make the graph, with its way of inference."""
    n_pixels, *widths, n_classes = serving.SIZES
    uniform = KaimingInitializer(distribution="uniform", gain=6**-0.5)  # ±1/√fan_in
    nodes = [IdentityNode(shape=(n_pixels,), name="pixels")]
    for number, width in enumerate(widths):
        phi = LeakyReLUActivation()
        nodes.append(Linear((width,), f"hidden{number}", activation=phi, weight_init=uniform))
    phi = IdentityActivation()
    nodes.append(Linear((n_classes,), "label", activation=phi, weight_init=uniform))
    return graph(
        nodes=nodes,
        edges=[
            Edge(source=source, target=target.slot("in"))
            for source, target in itertools.pairwise(nodes)
        ],
        task_map=TaskMap(x=nodes[0], y=nodes[-1]),
        inference=InferenceSGD(
            eta_infer=serving.ACTIVITY_RATE, infer_steps=serving.N_INFERENCE_STEPS
        ),
        graph_state_initializer=FeedforwardStateInit(),
    )


if __name__ == "__main__":
    serving.serve(Fabric, ("fabricpc", "jax"), ("discriminative",))
