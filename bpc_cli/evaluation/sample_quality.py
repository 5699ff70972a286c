"""How good sampled images are, by a classifier's features; and how far samples depend on another.

A score or a distance compares with those by the same classifier alone.
"""

import numpy as np
from jaxtyping import Float, Integer


def classifier_score(probabilities: Float[np.ndarray, "images classes"]) -> float:
    """Compute exp(E KL(p(class | image) ‖ p(class))): 1 to the number of classes.

    It is high where each image is surely of one class, and classes are even: the Inception score
    (Salimans et al. 2016), by another classifier.
    """
    p = np.asarray(probabilities, np.float64)
    tiny = np.finfo(np.float64).tiny
    logs = np.log(np.maximum(p, tiny)) - np.log(np.maximum(p.mean(axis=0), tiny))
    return float(np.exp(np.mean(np.sum(p * logs, axis=1))))


def frechet_distance(
    these: Float[np.ndarray, "images features"], those: Float[np.ndarray, "others features"]
) -> float:
    """Compute the Fréchet distance between normal distributions fitted to two sets of features.

    ‖μ - ν‖² + tr(C + D - 2 (C D)^½), as the Fréchet Inception distance (Heusel et al. 2017) does.
    """
    mean, covariance = _moments(these)
    other_mean, other_covariance = _moments(those)
    root = _square_root(covariance)
    between = np.linalg.eigvalsh(root @ other_covariance @ root)
    overlap = np.sum(np.sqrt(np.maximum(between, 0)))
    apart = np.sum((mean - other_mean) ** 2)
    return float(apart + np.trace(covariance) + np.trace(other_covariance) - 2 * overlap)


def autocorrelation_time(
    chains: Float[np.ndarray, "chains steps"], groups: Integer[np.ndarray, " chains"]
) -> float:
    """Compute a quantity's integrated autocorrelation time, in steps, from several chains.

    1 + 2 Σ ρ(t), summed up to the first window of five times itself (Sokal 1997), and at least 1,
    that of independent steps. The arguments are those of `autocorrelation`.
    """
    correlation = autocorrelation(chains, groups)
    times = np.maximum(1 + 2 * np.cumsum(correlation[1:]), 1)
    lags = np.arange(1, len(correlation))
    enough = np.flatnonzero(lags >= 5 * times)
    return float(times[enough[0]] if len(enough) else times[-1]) if len(times) else 1.0


def autocorrelation(
    chains: Float[np.ndarray, "chains steps"], groups: Integer[np.ndarray, " chains"]
) -> Float[np.ndarray, " lags"]:
    """Compute the mean autocorrelation of several chains at every lag.

    Args:
        chains: a quantity along each chain.
        groups: which chains sample from the same distribution, such as those of a class: deviations
            are from the mean of a group. (A chain's own mean would hide how slowly it moves.)
    """
    values = np.array(chains, np.float64)
    for group in np.unique(groups):
        values[groups == group] -= values[groups == group].mean()
    n_steps = values.shape[1]
    spectrum = np.abs(np.fft.rfft(values, 2 * n_steps, axis=1)) ** 2
    products = np.fft.irfft(spectrum, axis=1)[:, :n_steps].mean(axis=0)
    covariance = products / np.arange(n_steps, 0, -1)
    return covariance / covariance[0] if covariance[0] > 0 else np.zeros(n_steps)


def _moments(
    features: Float[np.ndarray, "images features"],
) -> tuple[Float[np.ndarray, " features"], Float[np.ndarray, "features features"]]:
    rows = np.asarray(features, np.float64)
    return rows.mean(axis=0), np.atleast_2d(np.cov(rows, rowvar=False))


def _square_root(matrix: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    values, vectors = np.linalg.eigh(matrix)
    return vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
