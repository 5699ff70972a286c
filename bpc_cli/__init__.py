"""Bidirectional predictive coding: an experiment runner, and a library for notebooks.

The names below can be imported from `bpc_cli` itself. They are loaded when first used, so that
`import bpc_cli` does not wait for JAX.
"""

import importlib
from typing import Any

_HOMES = {
    "Amortiser": "networks",
    "Generator": "networks",
    "layer_sizes": "networks",
    "make_networks": "networks",
    "amortiser_errors": "energy",
    "ALGORITHMS": "algorithms",
    "energy": "energy",
    "energy_terms": "energy",
    "generator_errors": "energy",
    "amortise": "inference",
    "relax": "inference",
    "start": "inference",
    "Optimiser": "optimisers",
    "make_optimiser": "optimisers",
    "Rules": "rules",
    "StepMetrics": "learning",
    "TrainState": "learning",
    "make_rules": "rules",
    "make_state": "learning",
    "start_from": "learning",
    "train_chunk": "learning",
    "train_replicas": "learning",
    "train_step": "learning",
    "PixelScale": "images",
    "normalise": "images",
    "pixel_scale": "images",
    "Dataset": "data",
    "batch_indices": "data",
    "load_dataset": "data",
    "NetworkTest": "metrics",
    "class_means": "metrics",
    "evaluate_networks": "metrics",
    "evaluate_replicas": "metrics",
    "over_replicas": "replicas",
    "stack": "replicas",
    "take": "replicas",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'bpc_cli' has no attribute '{name}'")
    return getattr(importlib.import_module(f"bpc_cli.{_HOMES[name]}"), name)
