"""A plain PyTorch loop: activities relax on gradients by autograd.

Layers are `nn.Linear`, with its biases in the discriminative setting; the bidirectional energy has
none. Threads are as many as PyTorch takes or one, whichever is faster.
"""

import time

import numpy as np
import serving
import torch
from serving import Data
from torch import Tensor, nn
from torch.nn import functional

SIZES = serving.SIZES[::-1]  # label side first


class Network(nn.Module):
    """A predictive coding network of one direction or of both; layers are listed label first."""

    def __init__(self, setting: str):
        super().__init__()
        bias, pairs = setting == "discriminative", list(zip(SIZES[1:], SIZES[:-1], strict=True))
        self.up = nn.ModuleList(nn.Linear(*pair, bias=bias) for pair in pairs)
        self.down = None
        if setting == "bidirectional":
            self.down = nn.ModuleList(nn.Linear(*pair[::-1], bias=bias) for pair in pairs)

    def feed_up(self, images: Tensor) -> list[Tensor]:
        """Predict label, z_0, … by the feedforward pass from the image."""
        predicted = [self.up[-1](images)]
        for layer in reversed(self.up[:-1]):
            predicted.append(layer(functional.leaky_relu(predicted[-1])))
        return predicted[::-1]

    def energy(self, label: Tensor, hidden: list[Tensor], images: Tensor) -> Tensor:
        """Compute the energy, summed over the batch."""
        states = [label, *hidden, images]
        active = [label, *map(functional.leaky_relu, hidden), images]
        total = serving.BACKWARD_WEIGHT * half_squares(states[:-1], active[1:], self.up)
        if self.down is not None:
            total = total + serving.FORWARD_WEIGHT * half_squares(
                states[1:], active[:-1], self.down
            )
        return total


def half_squares(targets: list[Tensor], sources: list[Tensor], layers: nn.ModuleList) -> Tensor:
    """Compute half the squares of prediction errors, summed over layers, units and the batch."""
    terms = zip(targets, sources, layers, strict=True)
    return sum((0.5 * (target - layer(source)).square().sum() for target, source, layer in terms))


class TorchLoop:
    """A network that learns MNIST."""

    def __init__(self, data: Data, setting: str):
        self.setting = setting
        self.images = torch.from_numpy(serving.unit_pixels(data.train_images))
        self.labels = torch.from_numpy(data.train_labels.astype(np.int64))
        self.test_images = torch.from_numpy(serving.unit_pixels(data.test_images))
        took = {n: self.time_steps_on(n) for n in (torch.get_num_threads(), 1)}
        torch.set_num_threads(min(took, key=took.__getitem__))

    def time_steps_on(self, n_threads: int) -> float:
        """Measure the seconds of a few steps on so many threads."""
        torch.set_num_threads(n_threads)
        self.reset()
        rows = serving.batch_rows(0, len(self.images))[:12]
        self.train(rows[:2])
        began = time.perf_counter()
        self.train(rows[2:])
        return time.perf_counter() - began

    def reset(self) -> None:
        torch.manual_seed(0)
        self.network = Network(self.setting)
        self.adam = torch.optim.Adam(self.network.parameters(), serving.WEIGHT_RATE)

    def train(self, rows: np.ndarray) -> None:
        for row in torch.from_numpy(rows):
            self.step(self.images[row], self.labels[row])

    def step(self, images: Tensor, labels: Tensor) -> None:
        """Initialise and relax the activities, then take a step of the weights."""
        label = functional.one_hot(labels, SIZES[0]).float()
        with torch.no_grad():
            hidden = self.network.feed_up(images)[1:]
        for state in hidden:
            state.requires_grad_()
        for _ in range(serving.N_INFERENCE_STEPS):
            energy = self.network.energy(label, hidden, images)
            slopes = torch.autograd.grad(energy, hidden)
            with torch.no_grad():
                for state, slope in zip(hidden, slopes, strict=True):
                    state -= serving.ACTIVITY_RATE * slope
        relaxed = [state.detach() for state in hidden]
        self.adam.zero_grad()
        (self.network.energy(label, relaxed, images) / len(images)).backward()
        self.adam.step()

    @torch.no_grad()
    def predict(self) -> np.ndarray:
        return self.network.feed_up(self.test_images)[0].argmax(1).numpy()


if __name__ == "__main__":
    serving.serve(TorchLoop, ("torch",))
