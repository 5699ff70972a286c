"""Bidirectional predictive coding: an experiment runner, and a library for notebooks.

The names below can be imported from `bpc_cli` itself. They are loaded when first used, so that
`import bpc_cli` does not wait for JAX.
"""

import importlib
from typing import Any

_HOMES = {
    "Amortiser": "core.models",
    "Generator": "core.models",
    "layer_sizes": "core.models",
    "make_networks": "core.models",
    "amortiser_errors": "core.energy",
    "energy": "core.energy",
    "energy_terms": "core.energy",
    "generator_errors": "core.energy",
    "amortise": "core.inference",
    "relax": "core.inference",
    "start": "core.inference",
    "Optimiser": "core.optimisers",
    "make_optimiser": "core.optimisers",
    "Rules": "core.rules",
    "StepMetrics": "core.learning",
    "TrainState": "core.learning",
    "make_rules": "core.rules",
    "make_state": "core.learning",
    "start_from": "core.learning",
    "train_chunk": "core.learning",
    "train_replicas": "core.learning",
    "train_step": "core.learning",
    "PixelScale": "data.pixels",
    "normalise": "data.pixels",
    "pixel_scale": "data.pixels",
    "Dataset": "data.datasets",
    "batch_indices": "data.datasets",
    "load_dataset": "data.datasets",
    "NetworkTest": "evaluation.classification",
    "class_means": "evaluation.classification",
    "evaluate_networks": "evaluation.classification",
    "evaluate_replicas": "evaluation.classification",
    "over_replicas": "core.ensembles",
    "stack": "core.ensembles",
    "take": "core.ensembles",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'bpc_cli' has no attribute '{name}'")
    return getattr(importlib.import_module(f"bpc_cli.{_HOMES[name]}"), name)
