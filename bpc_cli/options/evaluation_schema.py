"""The typed schema of every option of an evaluation; and both schemas as Hydra knows them."""

import dataclasses
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from bpc_cli.options import names
from bpc_cli.options.algorithms import ALGORITHMS
from bpc_cli.options.declare import option, option_fields
from bpc_cli.options.groups import ComputeConfig, PlotsConfig
from bpc_cli.options.schema import TrainConfig


@dataclasses.dataclass
class EvalInferenceConfig:
    n_steps: int | None = option(
        "inference steps; null: as in training, for diagnostics until converged (up to 500); 0: no "
        "tests by inference",
        "steps",
        at_least=0,
        at_most=1_000_000,
    )
    noise: float = option(
        "noise of Langevin steps, in units of √(2 · rate): the square root of the "
        "temperature, of which 1 samples from exp(-energy)",
        at_least=0,
    )


@dataclasses.dataclass
class EvalOptimConfig:
    activity_lr: float | None = option(
        "learning rate of the activities; null: as in training",
        "per step",
        at_least=0,
        was="inference.activity_lr",
    )
    activity: str | None = option(
        "optax optimiser of activities; null: as in training",
        was="inference.activity",
    )
    activity_args: dict[str, Any] = option(
        "its other arguments; none given: as in training, or none of another optimiser's",
        takes_any_keys=True,
    )


@dataclasses.dataclass
class EvalDataConfig:
    name: str | None = option("data set to test on; null: the one trained on")
    dir: str | None = option(
        "TFDS data directory; null: the run's while the data set is there, else $TFDS_DATA_DIR or "
        "~/tensorflow_datasets"
    )
    archive_dir: str | None = option(
        "folder with the data set's original archives, instead of a download; null: the run's"
    )
    n_test: int | None = option(
        "how many test images are used, the first; null: all", "images", at_least=1
    )
    mean: float | None = option("of a data set's file; a checkpoint has its own")
    std: float | None = option("of a data set's file; a checkpoint has its own")


@dataclasses.dataclass
class DiagnosisConfig:
    n_images: int = option("test images used, the first ones", "images", at_least=1)
    image: int = option("index of the test image whose Hessian is taken", at_least=0)
    hidden: list[float] = option("fractions of pixels that completion hides")


@dataclasses.dataclass
class SamplingConfig:
    label: str = option(
        "label in sampling: of each class in turn, or free and only initialised so",
        choices=names.SAMPLED_LABELS,
    )
    rate: float | None = option(
        "size of a Langevin step; null: optim.activity_lr (either is divided by the batch size "
        "under inference.reduction=mean)",
        "per step",
        above=0,
    )
    n_steps: int = option(
        "Langevin steps of a sample's chain", "steps", at_least=1, at_most=1_000_000
    )
    burn_in: int = option(
        "first steps, left out of the autocorrelation that is reported", "steps", at_least=0
    )


@dataclasses.dataclass
class EvalConfig:
    checkpoint: str = option(
        "run directory, checkpoint file, or a sweep's directory for all of its runs",
        section="evaluation",
    )
    which: str = option(
        "which checkpoint of a run directory", section="evaluation", choices=names.CHECKPOINTS
    )
    inference: EvalInferenceConfig = dataclasses.field(default_factory=EvalInferenceConfig)
    optim: EvalOptimConfig = dataclasses.field(default_factory=EvalOptimConfig)
    forward_energy_weight: float | None = option(
        "α_f in inference; null: as in training",
        section="inference",
        at_least=0,
        was="inference.forward_energy_weight",
    )
    backward_energy_weight: float | None = option(
        "α_b in inference; null: as in training",
        section="inference",
        at_least=0,
        was="inference.backward_energy_weight",
    )
    lowest_energy: bool | None = option(
        "energy-based classification, an inference for each class; null: where the amortiser does "
        "not learn",
        section="evaluation",
    )
    diagnostics: list[str] = option(
        "diagnostics by name, or [all]; an unknown name lists them", section="diagnosis"
    )
    diagnosis: DiagnosisConfig = dataclasses.field(default_factory=DiagnosisConfig)
    samples: int = option(
        "images to sample from the network's energy by Langevin steps",
        "images",
        section="sampling",
        at_least=0,
        at_most=1_000_000,
    )
    sampling: SamplingConfig = dataclasses.field(default_factory=SamplingConfig)
    data: EvalDataConfig = dataclasses.field(default_factory=EvalDataConfig)
    plots: PlotsConfig = dataclasses.field(default_factory=PlotsConfig)
    compute: ComputeConfig = dataclasses.field(default_factory=ComputeConfig)


def register_schemas() -> None:
    """Make the schemas known to Hydra, as the bases of `train.yaml` and `eval.yaml`."""
    store = ConfigStore.instance()
    for name, schema in (("train_schema", TrainConfig), ("eval_schema", EvalConfig)):
        node = OmegaConf.structured(schema)
        for path, field in option_fields(schema):
            if field.metadata["takes_any_keys"]:
                # Otherwise Hydra wants a '+' before every argument that a default does not name.
                OmegaConf.update(node, path, {})
                OmegaConf.set_struct(OmegaConf.select(node, path), False)
        store.store(name=name, node=node)
    for name in ALGORITHMS:
        store.store(group="algorithm", name=name, node={"name": name})
