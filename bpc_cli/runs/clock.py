"""Where a run's wall time goes: start-up, compile, train, evaluate, write."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

_PHASES = ("start_up", "compile", "train", "evaluate", "write")
_COMPILE_EVENTS = {
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
}


class PhaseClock:
    """Splits wall seconds into phases, with compilation taken out of the phase that caused it.

    Args:
        began: when the run began, in seconds since the epoch. What passes before the first phase
            counts as start-up.
    """

    def __init__(self, began: float):
        self._began = began
        self.seconds: dict[str, float] = dict.fromkeys(_PHASES, 0.0)
        jax.monitoring.register_event_duration_secs_listener(self._on_event)

    @property
    def elapsed(self) -> float:
        """Wall seconds since the run began."""
        return time.time() - self._began

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the wall seconds of a `with` block to a phase, less those of compiling in it."""
        start, compiled = time.perf_counter(), self.seconds["compile"]
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self.seconds[name] += spent - (self.seconds["compile"] - compiled)

    @contextlib.contextmanager
    def counting(self) -> Iterator[Callable[[], float]]:
        """Count the wall seconds of a `with` block, less those of compiling, to no phase."""
        start, compiled = time.perf_counter(), self.seconds["compile"]
        yield lambda: time.perf_counter() - start - (self.seconds["compile"] - compiled)

    def end_start_up(self) -> None:
        """Count everything so far, less compiling, as start-up."""
        self.seconds["start_up"] = self.elapsed - self.seconds["compile"]

    def add_earlier(self, seconds: Mapping[str, Any]) -> None:
        """Count what earlier processes of the same run spent, by phase and in `total`."""
        earlier = {k: float(v) for k, v in seconds.items() if isinstance(v, int | float)}
        for phase in _PHASES:
            self.seconds[phase] += earlier.get(phase, 0.0)
        self._began -= earlier.get("total", 0.0)

    def __enter__(self) -> "PhaseClock":
        return self

    def __exit__(self, *_: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._on_event)

    def _on_event(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event in _COMPILE_EVENTS:
            self.seconds["compile"] += duration_secs
