"""The health of training: signs that it runs away, or that nothing is learnt."""

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from bpc_cli.core.vitals import Vitals
from bpc_cli.files import JsonObject

WINDOW = 20  # iterations whose energies are averaged: a batch alone says little
_EARLY = 200  # iterations before which it is no sign that nothing is learnt yet
_LEARNT = 3.0  # times chance: first accuracies come and go
_HUGE = 1e150  # in place of a size whose square overflows, as JSON has no infinity
_LONGEST_SEEN = 200

_Numbers = Float[np.ndarray, " seeds"]


@dataclasses.dataclass(frozen=True)
class Sign:
    """A sign of bad health.

    Attributes:
        verdict: what training then looks like.
        limit: the ratio from which on it is one.
        seen: what is seen then, in words, with a place for a number.
        remedy: what most likely helps.
    """

    verdict: str
    limit: float
    seen: str
    remedy: str


_RATE = "lower optim.param_lr, or set a weight decay"


SIGNS = {
    "energy": Sign(
        "unstable", 5.0, "the energy before inference is {:.3g} times its lowest", _RATE
    ),
    "inference": Sign(
        "unstable",
        0.01,
        "inference raises the energy of {:.1%} of samples",
        "lower optim.param_lr or optim.activity_lr",
    ),
    "accuracy": Sign(
        "unstable",
        0.5,
        "test accuracy has fallen to {:.1f} %",
        "lower optim.param_lr, or use checkpoints/best.ckpt",
    ),
    "weights": Sign("unstable", 30.0, "weights are {:.3g} times what they were at first", _RATE),
    "activities": Sign(
        "unstable", 30.0, "activities are {:.3g} times what they were at first", _RATE
    ),
    "chance": Sign(
        "stuck",
        1.5,
        "test accuracy is {:.1f} %, as by chance",
        "another optim.param_lr, or for many layers experiment=mupc_depth32",
    ),
    "gradients": Sign(
        "stuck",
        1e-7,
        "a layer's gradient is {:.1g} of its direction's largest",
        "more inference.n_steps, or a larger optim.activity_lr",
    ),
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """A sign that was seen.

    Attributes:
        sign: its name in `SIGNS`.
        since: the first iteration at which it was.
        seeds: in which seeds.
        seen: what was seen, in words.
    """

    sign: str
    since: int
    seeds: list[int]
    seen: str

    def in_a_line(self, *, of_several: bool) -> str:
        """Say what was seen, since when, and what may help."""
        sign = SIGNS[self.sign]
        seeds = f" (seed {', '.join(map(str, self.seeds))})" if of_several else ""
        return (
            f"training looks {sign.verdict}: since iteration {self.since}{seeds} {self.seen}; "
            f"what may help: {sign.remedy}"
        )


class Health:
    """Watches a run's training for signs of bad health, and keeps each that it has seen once.

    What it goes by is a run's iterations alone, not how they were cut into chunks or processes.

    Args:
        seeds: the run's seeds.
        chance: the accuracy in per cent of one who guesses; None where nothing learns to classify.
        earlier: what `to_json` returned in an earlier process of the run.
    """

    def __init__(self, seeds: Sequence[int], chance: float | None, earlier: object = None):
        self.findings: list[Finding] = []
        self._seeds = list(seeds)
        self._chance = chance
        self._window: list[Float[np.ndarray, "2 seeds"]] = []  # energies, and what climbs
        self._first = self._lowest = np.full(len(seeds), np.inf)
        self._best = np.zeros(len(seeds))
        self._first_sizes: dict[str, np.ndarray] = {}
        # Of a checkpoint without it, health is watched from here on.
        with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
            self._take_over(earlier)

    def watch_steps(
        self,
        first: int,
        energies: Float[np.ndarray, "seeds steps"],
        climbing: Float[np.ndarray, "seeds steps"],
    ) -> None:
        """Look at steps from an iteration on.

        Args:
            first: the iteration.
            energies: the energy before inference at each step.
            climbing: the fraction of samples whose energy inference raised.
        """
        for number, step in enumerate(np.stack([energies, climbing]).transpose(2, 0, 1)):
            self._window.append(step)
            if (first + number) % WINDOW == 0:
                self._judge_window(first + number - len(self._window) + 1)

    def watch_test(self, iteration: int, accuracies: Sequence[float], vitals: Vitals) -> None:
        """Look at test accuracies in per cent, and at vitals, a row per seed of each."""
        if self._chance is not None:
            self._judge_accuracies(iteration, np.asarray(accuracies), self._chance)
        generator, amortiser, *gradients, activities = (
            np.nan_to_num(np.asarray(rows, np.float64), nan=_HUGE, posinf=_HUGE) for rows in vitals
        )
        self._judge_growth("weights", iteration, np.concatenate([generator, amortiser], axis=1))
        self._judge_growth("activities", iteration, activities)
        for sizes in gradients:
            self._judge_gradients(iteration, sizes)

    def to_json(self) -> JsonObject:
        """Lay out what a later process of the run must know."""
        return {
            "window": [step.tolist() for step in self._window],
            "first": _numbers_or_none(self._first),
            "lowest": _numbers_or_none(self._lowest),
            "best": list(self._best),
            "first_sizes": {sign: rows.tolist() for sign, rows in self._first_sizes.items()},
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
        }

    def _take_over(self, earlier: Any) -> None:
        """Take over what an earlier process saw; nothing, if it is not laid out as `to_json` does.

        Raises:
            KeyError, TypeError, ValueError: if it is not.
        """
        n = len(self._seeds)
        window = [_rows(step, (2, n)) for step in earlier["window"]]
        first, lowest = (
            _rows([np.inf if each is None else each for each in earlier[name]], (n,))
            for name in ("first", "lowest")
        )
        best = _rows(earlier["best"], (n,))
        sizes = {sign: _rows(rows, (n, -1)) for sign, rows in earlier["first_sizes"].items()}
        findings = [Finding(**finding) for finding in earlier["findings"]]
        if not all(map(_is_ours, findings)):
            raise ValueError
        self._window, self._first, self._lowest, self._best = window, first, lowest, best
        self._first_sizes, self.findings = sizes, findings

    def _judge_window(self, since: int) -> None:
        mean, climbing = np.mean(self._window, axis=0)
        self._window = []
        if np.isinf(self._first).all():
            self._first = mean
        self._lowest = np.minimum(self._lowest, mean)
        ratio = _divide(mean, self._lowest)
        # A well-trained model's energy is a small number that one odd batch multiplies.
        self._note(
            "energy", since, (ratio > SIGNS["energy"].limit) & (mean > self._first / 2), ratio
        )
        self._note("inference", since, climbing > SIGNS["inference"].limit, climbing)

    def _judge_accuracies(self, iteration: int, now: _Numbers, chance: float) -> None:
        self._best = np.maximum(self._best, now)
        kept = _divide(now - chance, np.maximum(self._best - chance, 0))
        had_learnt = self._best > _LEARNT * chance
        self._note("accuracy", iteration, had_learnt & (kept < SIGNS["accuracy"].limit), now)
        stuck = (self._best < SIGNS["chance"].limit * chance) & (iteration >= _EARLY)
        self._note("chance", iteration, stuck, now)

    def _judge_growth(
        self, sign: str, iteration: int, sizes: Float[np.ndarray, "seeds layers"]
    ) -> None:
        first = self._first_sizes.setdefault(sign, sizes)
        if sizes.size and sizes.shape == first.shape:
            ratio = _divide(sizes, first).max(axis=1)
            self._note(sign, iteration, ratio > SIGNS[sign].limit, ratio)

    def _judge_gradients(self, iteration: int, sizes: Float[np.ndarray, "seeds depth"]) -> None:
        largest = sizes.max(axis=1)
        ratio = _divide(sizes.min(axis=1), largest)
        vanishes = (largest > 0) & (ratio < SIGNS["gradients"].limit)
        self._note("gradients", iteration, vanishes, ratio)

    def _note(
        self, sign: str, since: int, which: Bool[np.ndarray, " seeds"], values: _Numbers
    ) -> None:
        """Note the first time that a sign is seen, in any seed."""
        if not which.any() or any(finding.sign == sign for finding in self.findings):
            return
        seeds = [seed for seed, is_one in zip(self._seeds, which, strict=True) if is_one]
        seen = SIGNS[sign].seen.format(float(values[int(np.argmax(which))]))
        self.findings.append(Finding(sign, since, seeds, seen))


def _divide(numbers: np.ndarray, by: np.ndarray) -> np.ndarray:
    return numbers / np.maximum(by, 1e-300)


def _is_ours(finding: Finding) -> bool:
    """Tell whether a finding that a file holds is one of ours, and safe to print."""
    return (
        finding.sign in SIGNS
        and type(finding.since) is int
        and isinstance(finding.seeds, list)
        and all(type(seed) is int for seed in finding.seeds)
        and isinstance(finding.seen, str)
        and finding.seen.isprintable()
        and len(finding.seen) <= _LONGEST_SEEN
    )


def _rows(numbers: Any, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(numbers, np.float64).reshape(shape)


def _numbers_or_none(numbers: _Numbers) -> list[Any]:
    return [float(number) if np.isfinite(number) else None for number in numbers]
