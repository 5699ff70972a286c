"""What a logger is, and how all of a run's are handed what happens in it."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import UInt8

from bpc_cli.core.models import Model
from bpc_cli.errors import cut_off, one_line
from bpc_cli.evaluation.statistics import MetricsLine
from bpc_cli.runs.loggers.histograms import histograms_of

_LONGEST_REASON = 300


class Logger(Protocol):
    """Takes a run's metrics as they come."""

    def lines(self, lines: Sequence[MetricsLine]) -> None:
        """Take metrics lines."""

    def test_point(
        self,
        iteration: int,
        picture: Path,
        histograms: Callable[[], Mapping[str, np.ndarray]],
    ) -> None:
        """Take a test point's sample grid, and a function that computes histograms' values."""

    def close(self, status: str) -> None:
        """Write what is not written yet, and how the run ended, as `summary.json` names it."""


class Loggers:
    """Hands everything to several loggers; one that fails warns once, and is left out from then on.

    Args:
        makers: for each logger, by its tracker's name, a function that makes it.
        warn: tells the user.
    """

    def __init__(self, makers: Mapping[str, Callable[[], Logger]], warn: Callable[[str], None]):
        self._loggers: dict[str, Logger] = {}
        self._warn = warn
        for name, make in makers.items():
            try:
                self._loggers[name] = make()
            except Exception as error:
                self._report(name, "could not be started", error)

    def lines(self, lines: Sequence[MetricsLine]) -> None:
        """Hand over metrics lines."""
        self._each(lambda logger: logger.lines(lines))

    def test_point(
        self,
        iteration: int,
        picture: Path,
        models: Model,
        images: UInt8[np.ndarray, "examples pixels"],
    ) -> None:
        """Hand over a test point; histograms are computed for who asks, once.

        Args:
            iteration: the last one done.
            picture: the sample grid, if it could be drawn.
            models: an ensemble, also of a single one.
            images: whose activities histograms show.
        """
        histograms = functools.cache(lambda: histograms_of(models, images))
        self._each(lambda logger: logger.test_point(iteration, picture, histograms))

    def close(self, status: str = "failed") -> None:
        """Close each logger that has not been closed, with how the run ended."""
        self._each(lambda logger: logger.close(status))
        self._loggers.clear()

    def _each(self, hand_over: Callable[[Logger], None]) -> None:
        """Do something with each logger that has not failed."""
        for name, logger in list(self._loggers.items()):
            try:
                hand_over(logger)
            except Exception as error:  # whatever another package raises, the run continues
                del self._loggers[name]
                self._report(name, "failed", error)

    def _report(self, name: str, what: str, error: Exception) -> None:
        reason = cut_off(one_line(error), _LONGEST_REASON)
        self._warn(f"logger.{name} {what} ({reason}); the run continues without it")
