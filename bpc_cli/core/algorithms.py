"""Which directions' errors an algorithm infers by, and which learn."""

from bpc_cli.core.energy import EnergyWeights, Weight
from bpc_cli.options.algorithms import Algorithm


def inference_weights(algorithm: Algorithm, forward: Weight, backward: Weight) -> EnergyWeights:
    """Take the energy weights of the directions that activities relax on."""
    return EnergyWeights(
        forward if algorithm.generator_infers else None,
        backward if algorithm.amortiser_infers else None,
    )


def learning_weights(algorithm: Algorithm, forward: Weight, backward: Weight) -> EnergyWeights:
    """Take the energy weights of the directions that learn."""
    return EnergyWeights(
        forward if algorithm.generator_learns else None,
        backward if algorithm.amortiser_learns else None,
    )
