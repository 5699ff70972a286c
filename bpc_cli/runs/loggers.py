"""Where else metrics go: TensorBoard's event files, and Weights & Biases."""

import contextlib
import importlib.util
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

from bpc_cli.core.ensembles import over_ensemble
from bpc_cli.core.models import Model
from bpc_cli.errors import UserError, one_line
from bpc_cli.evaluation.statistics import MetricsLine, whole
from bpc_cli.files import JsonObject, read_inside, write_atomically

_NOT_METRICS = {"iteration", "epoch", "seed", "seconds"}
HISTOGRAM_IMAGES = 1_000
_BINS = 64
_PLURALS = {"weight": "weights", "bias": "biases"}


def require_extras(*, tensorboard: bool, wandb: bool) -> None:
    """Reject loggers whose packages are not installed.

    Raises:
        UserError: naming the extra to install.
    """
    for wanted, module, extra in (
        (tensorboard, "tensorboardX", "tensorboard"),
        (wandb, "wandb", "wandb"),
    ):
        if wanted and importlib.util.find_spec(module) is None:
            raise UserError(
                f"logger.{extra} needs the extra '{extra}': pip install 'bpc-cli[{extra}]'"
            )


class LoggerOptions(Protocol):
    """Which loggers are asked for."""

    tensorboard: bool
    wandb: bool
    wandb_project: str
    wandb_mode: str


def logger_makers(
    wanted: LoggerOptions, options: Mapping[str, Any], directory: Path, first: int
) -> "list[Callable[[], Logger]]":
    """List functions that make the loggers that are asked for.

    Args:
        wanted: which.
        options: the run's, as a tracker shows them.
        directory: the run's.
        first: the first iteration that is to come.
    """
    makers: list[Callable[[], Logger]] = []
    if wanted.tensorboard:
        makers.append(lambda: TensorBoard(directory / "tensorboard", first))
    if wanted.wandb:
        makers.append(
            lambda: WeightsAndBiases(directory, wanted.wandb_project, wanted.wandb_mode, options)
        )
    return makers


class Logger(Protocol):
    """Takes a run's metrics as they come."""

    def lines(self, lines: Sequence[MetricsLine]) -> None:
        """Take metrics lines."""

    def test_point(
        self, iteration: int, picture: Path, histograms: Mapping[str, np.ndarray]
    ) -> None:
        """Take a test point's sample grid and histograms' values, by name."""

    def close(self) -> None:
        """Write what is not written yet."""


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

    def close(self) -> None:
        """Close each logger."""
        self.each(lambda logger: logger.close())


class TensorBoard:
    """Writes event files, without TensorFlow.

    Args:
        folder: where they go.
        first: the first iteration that is to come; what an earlier process wrote from there on is
            not shown.
    """

    def __init__(self, folder: Path, first: int):
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=first if first > 1 else None)

    def lines(self, lines: Sequence[MetricsLine]) -> None:
        """Write scalars; of several seeds each under its own name."""
        several = len({line["seed"] for line in lines}) > 1
        for line in lines:
            for name, value in line.items():
                if name not in _NOT_METRICS and value is not None:
                    tag = f"{name}/seed_{line['seed']}" if several else name
                    self._writer.add_scalar(tag, value, whole(line, "iteration"))

    def test_point(
        self, iteration: int, picture: Path, histograms: Mapping[str, np.ndarray]
    ) -> None:
        """Write the sample grid and histograms."""
        if picture.exists():
            with Image.open(picture) as grid:
                pixels = np.asarray(grid.convert("RGB"))
            self._writer.add_image("samples", pixels, iteration, dataformats="HWC")
        for name, values in histograms.items():
            self._writer.add_histogram(name, values, iteration)
        self._writer.flush()

    def close(self) -> None:
        """Write what is not written yet."""
        self._writer.close()


class WeightsAndBiases:
    """Logs to Weights & Biases, by default without a network.

    Args:
        directory: the run's, where what waits for `wandb sync` is kept, and the run's id there.
        project: the project there.
        mode: "offline" or "online".
        config: the run's options.
    """

    def __init__(self, directory: Path, project: str, mode: str, config: Mapping[str, Any]):
        import wandb

        self._wandb = wandb
        self._run = wandb.init(
            project=project,
            mode=mode,  # pyright: ignore[reportArgumentType]
            dir=str(directory),
            config=dict(config),
            id=_lasting_id(directory / "wandb_id"),
            resume="allow",
            settings=wandb.Settings(silent=True, console="off"),
        )

    def lines(self, lines: Sequence[MetricsLine]) -> None:
        """Log the lines of each iteration together; of several seeds each under its own name."""
        several = len({line["seed"] for line in lines}) > 1
        by_iteration: dict[int, dict[str, float]] = {}
        for line in lines:
            for name, value in line.items():
                if name not in _NOT_METRICS and value is not None:
                    tag = f"{name}/seed_{line['seed']}" if several else name
                    by_iteration.setdefault(whole(line, "iteration"), {})[tag] = value
        for iteration, numbers in by_iteration.items():
            self._run.log(numbers, step=iteration)

    def test_point(
        self, iteration: int, picture: Path, histograms: Mapping[str, np.ndarray]
    ) -> None:
        """Log the sample grid and histograms."""
        logged: JsonObject = {
            name: self._wandb.Histogram(np_histogram=np.histogram(values, _BINS))
            for name, values in histograms.items()
        }
        if picture.exists():
            logged["samples"] = self._wandb.Image(str(picture))
        self._run.log(logged, step=iteration)

    def close(self) -> None:
        """End the run there."""
        self._run.finish()


def histograms_of(
    models: Model, images: UInt8[np.ndarray, "examples pixels"]
) -> dict[str, np.ndarray]:
    """Collect every layer's weights, and hidden activities as the amortiser initialises them.

    Args:
        models: an ensemble; each seed's values come one after the other.
        images: the activities' are those of the first 1,000.
    """
    values = {}
    for direction in ("generator", "amortiser"):
        for number, layer in enumerate(getattr(models, direction)):
            for path, leaf in jax.tree.leaves_with_path(eqx.filter(layer, eqx.is_array_like)):
                kind = _PLURALS.get(path[-1].name, path[-1].name)
                values[f"{kind}/{direction}_{number}"] = np.asarray(leaf).ravel()
    activities = _amortised(models, jnp.asarray(images[:HISTOGRAM_IMAGES]))
    for number, layer in enumerate(activities):
        values[f"activities/z_{number}"] = np.asarray(layer).ravel()
    return values


@eqx.filter_jit
def _amortised(
    models: Model, images: UInt8[Array, "examples pixels"]
) -> list[Float[Array, "members examples ..."]]:
    return over_ensemble(
        lambda model: jax.vmap(lambda image: model.feed_up(image)[1:])(model.to_states(images)),
        models,
    )


def _lasting_id(path: Path) -> str:
    """Read the id that a run has elsewhere, or give it one."""
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(read_inside(path.parent, path, most=100))
        if isinstance(known, str) and known.isalnum() and len(known) == 16:
            return known
    made = secrets.token_hex(8)
    write_atomically(path, json.dumps(made).encode())
    return made
