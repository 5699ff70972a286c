"""Bidirectional predictive coding: an experiment runner, and a library for notebooks.

The names below can be imported from `bpc_cli` itself. They are loaded when first used, so that
`import bpc_cli` does not wait for JAX.
"""

import importlib
from typing import Any

_HOMES = {
    "load": "cli.restore",
    "TrainedRun": "cli.restore",
    "Layer": "core.layers",
    "Dense": "core.layers",
    "Residual": "core.layers",
    "Output": "core.layers",
    "Conv": "core.convolutions",
    "Upsample": "core.convolutions",
    "Mlp": "core.architectures",
    "Cnn": "core.architectures",
    "Bimodal": "core.bimodal",
    "Model": "core.models",
    "make_model": "core.models",
    "EnergyWeights": "core.energy",
    "amortiser_errors": "core.energy",
    "energy": "core.energy",
    "energy_terms": "core.energy",
    "generator_errors": "core.energy",
    "Clamping": "core.clamping",
    "States": "core.clamping",
    "Inference": "core.inference",
    "infer": "core.inference",
    "infer_each": "core.inference",
    "initialise": "core.inference",
    "relax": "core.relaxation",
    "Optimiser": "core.optimisers",
    "make_optimiser": "core.optimisers",
    "inference_weights": "core.algorithms",
    "learning_weights": "core.algorithms",
    "Batch": "core.learning",
    "Chunk": "core.training",
    "Examples": "core.training",
    "Learning": "core.learning",
    "StepMetrics": "core.learning",
    "TrainState": "core.learning",
    "Training": "core.training",
    "make_state": "core.learning",
    "train_chunk": "core.training",
    "train_ensemble": "core.training",
    "train_step": "core.learning",
    "over_ensemble": "core.ensembles",
    "stack": "core.ensembles",
    "take": "core.ensembles",
    "PixelScale": "data.pixels",
    "Dataset": "data.datasets",
    "batch_indices": "data.examples",
    "load_dataset": "data.datasets",
    "NetworkTest": "evaluation.network_tests",
    "class_means": "evaluation.metrics",
    "evaluate_ensemble": "evaluation.feedforward",
}

# Names of the release before, whose meaning was that of a batch or of one direction alone.
_GONE = {
    **dict.fromkeys(
        ("Generator", "Amortiser", "make_networks", "layer_sizes"), "Model, make_model"
    ),
    **dict.fromkeys(("Rules", "make_rules", "ALGORITHMS"), "Inference, Learning, Training"),
    **dict.fromkeys(("amortise", "start"), "initialise, infer"),
    "start_from": "make_state",
    **dict.fromkeys(("normalise", "pixel_scale"), "PixelScale, Model.to_states"),
    "train_replicas": "train_ensemble",
    "over_replicas": "over_ensemble",
    **dict.fromkeys(("evaluate_networks", "evaluate_replicas"), "evaluate_ensemble"),
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _GONE:
        raise AttributeError(f"'bpc_cli.{name}' is gone; what took its place: {_GONE[name]}")
    if name not in _HOMES:
        raise AttributeError(f"module 'bpc_cli' has no attribute '{name}'")
    return getattr(importlib.import_module(f"bpc_cli.{_HOMES[name]}"), name)
