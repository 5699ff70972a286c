"""The models of the comparison: each is an energy, and a choice of what starts and what learns.

| name | activities start from | relax on | the generator learns | the amortiser learns |
|---|---|---|---|---|
| bpc | the amortiser | both directions' errors | its errors | its errors |
| hpc | the amortiser | the generator's errors | its errors | its errors at the relaxed activities |
| discpc | the amortiser | the amortiser's errors | nothing | its errors |
| genpc | the generator | the generator's errors | its errors | nothing |
| bp | – | – | ½‖image - drawn‖² by backpropagation | ½‖label - named‖² by it |

Each sees the same batches in the same order for a seed.
"""

from typing import NamedTuple


class Algorithm(NamedTuple):
    """What tells one model from another.

    Attributes:
        generator_infers: whether activities relax on the generator's errors.
        amortiser_infers: whether they relax on the amortiser's.
        generator_learns: whether the generator learns.
        amortiser_learns: whether the amortiser learns.
        start: what the activities start from, unless that is asked for: an entry of
            `inference.STARTS`.
        by_backpropagation: whether each network learns end to end, from its own output's error,
            without activities.
    """

    generator_infers: bool
    amortiser_infers: bool
    generator_learns: bool
    amortiser_learns: bool
    start: str
    by_backpropagation: bool = False


ALGORITHMS: dict[str, Algorithm] = {
    # Bidirectional PC (Oliviers, Tang & Bogacz 2025, arXiv 2505.23415).
    "bpc": Algorithm(True, True, True, True, "amortised"),
    # Hybrid PC (Tschantz, Millidge, Seth & Buckley 2023).
    "hpc": Algorithm(True, False, True, True, "amortised"),
    "discpc": Algorithm(False, True, False, True, "amortised"),
    "genpc": Algorithm(True, False, True, False, "generative"),
    "bp": Algorithm(False, False, True, True, "amortised", by_backpropagation=True),
}
