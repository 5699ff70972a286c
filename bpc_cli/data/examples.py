"""Which examples of a data set are used: batches, parts of it, and whose labels are known."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Integer

from bpc_cli.data.datasets import Dataset
from bpc_cli.errors import UserError


def batch_indices(
    seed: int, first: int, last: int, n_examples: int, batch_size: int
) -> Integer[np.ndarray, "steps batch"]:
    """List which examples make up the batches of iterations `first` to `last`, both included.

    Iterations count from 1. Every epoch is a fresh permutation, fixed by the seed and the epoch
    alone; what is left over after its last whole batch is dropped.
    """
    per_epoch = n_examples // batch_size
    rows = np.empty((last - first + 1, batch_size), np.int32)
    epoch, order = -1, np.empty(0, np.int64)
    for row, step in enumerate(range(first - 1, last)):
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            order = np.random.default_rng([seed, epoch]).permutation(n_examples)
        start = step % per_epoch * batch_size
        rows[row] = order[start : start + batch_size]
    return rows


def shortened(dataset: Dataset, n_train: int | None, n_validation: int) -> Dataset:
    """Keep the last training images for validation, and of the others train on the first alone.

    Args:
        dataset: the data set.
        n_train: how many to train on; None: all but those kept.
        n_validation: how many take the test set's place; 0: the test set stays.

    Raises:
        UserError: if there are not so many.
    """
    if n_train is None and not n_validation:
        return dataset
    n_all = len(dataset.train_images)
    wanted = n_all - n_validation if n_train is None else n_train
    if wanted < 1 or wanted + n_validation > n_all:
        raise UserError(
            f"data.n_train={n_train} and data.n_validation={n_validation} ask for more than the "
            f"{n_all} training images of {dataset.name}"
        )
    kept = dataclasses.replace(
        dataset,
        train_images=dataset.train_images[:wanted],
        train_labels=dataset.train_labels[:wanted],
    )
    if not n_validation:
        return kept
    return dataclasses.replace(
        kept,
        test_images=dataset.train_images[-n_validation:],
        test_labels=dataset.train_labels[-n_validation:],
    )


def labelled_examples(
    labels: Integer[np.ndarray, " examples"], fraction: float, seed: int
) -> Bool[np.ndarray, " examples"]:
    """Choose the examples whose labels are known, the same fraction of each class, by a seed.

    A class has at least one, unless the fraction is 0.
    """
    known = np.zeros(len(labels), bool)
    rng = np.random.default_rng([seed, len(labels)])
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        known[members[: max(round(fraction * len(members)), fraction > 0)]] = True
    return known
