"""The algorithms: each is an energy, and a choice of what is initialised, what infers, what learns.

| name | activities are initialised by | relax on | the generator learns | the amortiser learns |
|---|---|---|---|---|
| bpc | the amortiser | both directions' errors | its errors | its errors |
| hpc | the amortiser | the generator's errors | its errors | its errors at the relaxed activities |
| discpc | the amortiser | the amortiser's errors | nothing | its errors |
| genpc | the generator | the generator's errors | its errors | nothing |
| bp | – | – | ½‖image - generated‖² by backpropagation | ½‖label - predicted‖² by it |

Each sees the same batches in the same order for a seed. The table stands among the options, as the
schema, the checks and `--help` read it without JAX; a new algorithm of a kind that its fields know
is a row.
"""

from typing import NamedTuple


class Algorithm(NamedTuple):
    """What tells one algorithm from another.

    Attributes:
        about: the algorithm in a few words.
        generator_infers: whether activities relax on the generator's errors.
        amortiser_infers: whether they relax on the amortiser's.
        generator_learns: whether the generator learns.
        amortiser_learns: whether the amortiser learns.
        init: how activities are initialised, unless asked for otherwise: one of `names.INITS`.
        by_backpropagation: whether each network learns end to end, from its own output's error,
            without activities.
    """

    about: str
    generator_infers: bool
    amortiser_infers: bool
    generator_learns: bool
    amortiser_learns: bool
    init: str = "amortised"
    by_backpropagation: bool = False


ALGORITHMS: dict[str, Algorithm] = {
    # Oliviers, Tang & Bogacz 2025 (arXiv 2505.23415).
    "bpc": Algorithm("bidirectional predictive coding", True, True, True, True),
    # Tschantz, Millidge, Seth & Buckley 2023.
    "hpc": Algorithm("hybrid predictive coding", True, False, True, True),
    "discpc": Algorithm("discriminative predictive coding", False, True, False, True),
    "genpc": Algorithm("generative predictive coding", True, False, True, False, "generative"),
    "bp": Algorithm("backpropagation", False, False, True, True, by_backpropagation=True),
}
