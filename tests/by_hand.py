"""Predictive coding in NumPy, written from its equations: an oracle."""

import numpy as np


class ByHand:
    """Predictive coding in NumPy: states s_0 (label) … s_L (image), tanh, no biases.

    Forward errors e_i = s_{i+1} - W_i φ(s_i), backward errors d_i = s_i - V_i φ(s_{i+1}); φ is left
    out at the label and at the image.
    """

    def __init__(self, model, label, image):
        self.W = [np.asarray(layer.weight) for layer in model.generator]
        self.V = [np.asarray(layer.weight) for layer in model.amortiser]
        self.label, self.image, self.depth = np.asarray(label), np.asarray(image), len(self.W)

    def phi(self, i, s):
        return s if i in (0, self.depth) else np.tanh(s)

    def slope(self, i, s):
        return np.ones_like(s) if i in (0, self.depth) else 1 - np.tanh(s) ** 2

    def errors(self, s):
        forward = [s[i + 1] - self.phi(i, s[i]) @ self.W[i].T for i in range(self.depth)]
        backward = [s[i] - self.phi(i + 1, s[i + 1]) @ self.V[i].T for i in range(self.depth)]
        return forward, backward

    def amortised(self):
        s = [self.image]
        for i in reversed(range(self.depth)):
            s.append(self.phi(i + 1, s[-1]) @ self.V[i].T)
        return [self.label, *reversed(s[1:-1]), self.image]

    def generated(self):
        s = [self.label]
        for i in range(self.depth):
            s.append(self.phi(i, s[-1]) @ self.W[i].T)
        return [*s[:-1], self.image]

    def relaxed(self, s, alpha_f, alpha_b, n_steps, rate, free=None, frozen_pixels=None):
        """Relax the hidden states, or those given, at a rate per sample."""
        for _ in range(n_steps):
            e, d = self.errors(s)
            moved = list(s)
            for i in range(1, self.depth) if free is None else free:
                gradient = np.zeros_like(s[i])
                if i > 0:
                    gradient += alpha_f * e[i - 1]
                    gradient -= alpha_b * self.slope(i, s[i]) * (d[i - 1] @ self.V[i - 1])
                if i < self.depth:
                    gradient += alpha_b * d[i]
                    gradient -= alpha_f * self.slope(i, s[i]) * (e[i] @ self.W[i])
                if i == self.depth and frozen_pixels is not None:
                    gradient[:, frozen_pixels] = 0
                moved[i] = s[i] - rate * gradient
            s = moved
        return s

    def gradients(self, s, alpha_f, alpha_b):
        e, d = self.errors(s)
        return [
            [-alpha_f / len(self.label) * e[i].T @ self.phi(i, s[i]) for i in range(self.depth)],
            [
                -alpha_b / len(self.label) * d[i].T @ self.phi(i + 1, s[i + 1])
                for i in range(self.depth)
            ],
        ]

    def energies(self, s, alpha_f, alpha_b):
        """The energy of each sample."""
        e, d = self.errors(s)
        return 0.5 * sum(
            alpha_f * (x**2).sum(1) + alpha_b * (y**2).sum(1) for x, y in zip(e, d, strict=True)
        )

    def energy(self, s, alpha_f, alpha_b):
        return self.energies(s, alpha_f, alpha_b).mean()
