"""A plain JAX loop, as one writes it in a notebook; layers have no biases."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import serving
from jax import Array
from serving import Data

Weights = dict[str, list[Array]]
SIZES = serving.SIZES[::-1]  # label side first
ADAM = optax.adam(serving.WEIGHT_RATE)


class JaxLoop:
    """A predictive coding network that learns MNIST."""

    def __init__(self, data: Data, setting: str):
        self.images, self.labels = serving.unit_pixels(data.train_images), data.train_labels
        self.test_images = serving.unit_pixels(data.test_images)
        self.directions = ["up"] if setting == "discriminative" else ["up", "down"]

    def reset(self) -> None:
        self.weights = make_weights(jax.random.PRNGKey(0), self.directions)
        self.adam_state = ADAM.init(self.weights)

    def train(self, rows: np.ndarray) -> None:
        for row in rows:
            self.weights, self.adam_state = train_step(
                self.weights, self.adam_state, self.images[row], self.labels[row]
            )
        jax.block_until_ready(self.weights)

    def predict(self) -> np.ndarray:
        return np.asarray(jnp.argmax(feed_up(self.weights, self.test_images)[0], axis=1))


def make_weights(key: Array, directions: list[str]) -> Weights:
    """Make the weights of the directions, uniform in ±1/√fan_in, label side first."""
    weights = {}
    for name, own_key in zip(directions, jax.random.split(key, len(directions)), strict=True):
        sizes = list(zip(SIZES[1:], SIZES[:-1], strict=True))
        if name == "down":
            sizes = [size[::-1] for size in sizes]
        keys = jax.random.split(own_key, len(sizes))
        weights[name] = [
            jax.random.uniform(k, size, minval=-1, maxval=1) / math.sqrt(size[0])
            for k, size in zip(keys, sizes, strict=True)
        ]
    return weights


def read(states: list[Array]) -> list[Array]:
    """Apply the activation to all states but those at the ends."""
    return [states[0], *map(jax.nn.leaky_relu, states[1:-1]), states[-1]]


@jax.jit
def feed_up(weights: Weights, images: Array) -> list[Array]:
    """Predict label, z_0, … by the feedforward pass from the image."""
    *hidden, first = weights["up"]
    predicted = [images @ first]
    for weight in reversed(hidden):
        predicted.append(jax.nn.leaky_relu(predicted[-1]) @ weight)
    return predicted[::-1]


def energy(hidden: list[Array], weights: Weights, label: Array, images: Array) -> Array:
    """Compute the energy, summed over the batch."""
    states = [label, *hidden, images]
    active = read(states)

    def half_squares(targets: list[Array], sources: list[Array], maps: list[Array]) -> Array:
        pairs = zip(targets, sources, maps, strict=True)
        return sum((0.5 * jnp.sum((t - s @ w) ** 2) for t, s, w in pairs), jnp.zeros(()))

    total = serving.BACKWARD_WEIGHT * half_squares(states[:-1], active[1:], weights["up"])
    if "down" in weights:
        total += serving.FORWARD_WEIGHT * half_squares(states[1:], active[:-1], weights["down"])
    return total


@jax.jit
def train_step(
    weights: Weights, adam_state: optax.OptState, images: Array, labels: Array
) -> tuple[Weights, optax.OptState]:
    """Initialise and relax the activities, then take a step of the weights."""
    label = jax.nn.one_hot(labels, SIZES[0])
    hidden = feed_up(weights, images)[1:]
    for _ in range(serving.N_INFERENCE_STEPS):
        slopes = jax.grad(energy)(hidden, weights, label, images)
        hidden = [z - serving.ACTIVITY_RATE * g for z, g in zip(hidden, slopes, strict=True)]
    of_weights = functools.partial(energy, hidden, label=label, images=images)
    gradients = jax.grad(lambda w: of_weights(w) / len(images))(weights)
    updates, adam_state = ADAM.update(gradients, adam_state)
    return optax.apply_updates(weights, updates), adam_state


if __name__ == "__main__":
    serving.serve(JaxLoop, ("jax",))
