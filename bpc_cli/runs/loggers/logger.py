"""What a logger is, and how all of a run's are handed what happens in it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from bpc_cli.errors import one_line
from bpc_cli.evaluation.statistics import MetricsLine


class Logger(Protocol):
    """Takes a run's metrics as they come."""

    def lines(self, lines: Sequence[MetricsLine]) -> None:
        """Take metrics lines."""

    def test_point(
        self, iteration: int, picture: Path, histograms: Mapping[str, np.ndarray]
    ) -> None:
        """Take a test point's sample grid and histograms' values, by name."""

    def close(self, status: str) -> None:
        """Write what is not written yet, and how the run ended, as `summary.json` names it."""


class Loggers:
    """Hands everything to several loggers; one that fails warns once, and is left out from then on.

    Args:
        makers: for each logger a function that makes it.
        warn: tells the user.
    """

    def __init__(self, makers: Sequence[Callable[[], Logger]], warn: Callable[[str], None]):
        self._loggers: list[Logger] = []
        self._warn = warn
        for make in makers:
            try:
                self._loggers.append(make())
            except Exception as error:
                warn(
                    f"a logger could not be started ({one_line(error)}); the run continues without"
                )

    def __bool__(self) -> bool:
        return bool(self._loggers)

    def each(self, hand_over: Callable[[Logger], None]) -> None:
        """Do something with each logger that has not failed."""
        for logger in list(self._loggers):
            try:
                hand_over(logger)
            except Exception as error:  # whatever another package raises, the run continues
                self._loggers.remove(logger)
                name = type(logger).__name__
                self._warn(f"{name} failed ({one_line(error)}); the run continues without it")

    def close(self, status: str = "failed") -> None:
        """Close each logger that has not been closed, with how the run ended."""
        self.each(lambda logger: logger.close(status))
        self._loggers.clear()
