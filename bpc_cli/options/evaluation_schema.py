"""The typed schema of every option of an evaluation; and both schemas as Hydra knows them."""

import dataclasses

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from bpc_cli.options.declare import option, option_fields
from bpc_cli.options.schema import ComputeConfig, DataConfig, TrainConfig

DIAGNOSTICS = ("inference", "steps", "hessian", "probe", "completion", "landscape")


@dataclasses.dataclass
class EvalInferenceConfig:
    n_steps: int | None = option(
        "gradient steps on the activities in tests by relaxation; null: as many as in training; "
        "0: no such tests",
        "steps",
        at_least=0,
    )
    activity_lr: float | None = option(
        "learning rate of the activities there; null: as in training", "per step", at_least=0
    )
    activity: str | None = option(
        "optax optimiser of the activities there, by name; null: as in training"
    )
    forward_energy_weight: float | None = option("alpha_f there; null: as in training", at_least=0)
    backward_energy_weight: float | None = option("alpha_b there; null: as in training", at_least=0)


@dataclasses.dataclass
class DiagnosisConfig:
    n_images: int = option("how many test images diagnostics use, the first", "images", at_least=1)
    image: int = option("the number of the test image whose Hessian is taken", at_least=0)
    hidden: list[float] = option("shares of an image's pixels that completion hides")


@dataclasses.dataclass
class EvalConfig:
    checkpoint: str = option("a run directory or a checkpoint file; required")
    which: str = option("the checkpoint to read in a run directory", choices=("last", "best"))
    inference: EvalInferenceConfig = dataclasses.field(default_factory=EvalInferenceConfig)
    diagnostics: list[str] = option(
        "what else to measure and draw: [inference,steps,hessian,probe,completion,landscape], or "
        "[all]"
    )
    diagnosis: DiagnosisConfig = dataclasses.field(default_factory=DiagnosisConfig)
    data: DataConfig | None = option(
        "data set to test on (data=NAME); null: the one that the run was trained on"
    )
    compute: ComputeConfig = dataclasses.field(default_factory=ComputeConfig)


def register_schemas() -> None:
    """Make the schemas known to Hydra, as the bases of `train.yaml` and `eval.yaml`."""
    store = ConfigStore.instance()
    train_schema = OmegaConf.structured(TrainConfig)
    for path, field in option_fields(TrainConfig):
        if field.metadata["takes_any_keys"]:
            # Otherwise Hydra wants a '+' before every argument that a default does not name.
            OmegaConf.update(train_schema, path, {})
            OmegaConf.set_struct(OmegaConf.select(train_schema, path), False)
    store.store(name="train_schema", node=train_schema)
    store.store(name="eval_schema", node=EvalConfig)
