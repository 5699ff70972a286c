"""Jobs of a sweep, composed from the config of the first."""

import itertools
from pathlib import Path

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf, open_dict

from bpc_cli.cli.composing import Composer
from bpc_cli.options.algorithms import ALGORITHMS
from bpc_cli.options.check import check_config
from bpc_cli.options.evaluation_schema import register_schemas
from bpc_cli.options.schema import TrainConfig

EXPERIMENTS = Path(__file__).parents[1] / "configs" / "experiment"


def test_every_experiment_composes_with_the_algorithm_that_it_is_named_for():
    register_schemas()
    with hydra.initialize_config_module("bpc_cli.configs", version_base="1.3"):
        for name in sorted(path.stem for path in EXPERIMENTS.glob("*.yaml")):
            config = check_config(hydra.compose("train", [f"experiment={name}"]), TrainConfig)
            named_for = name.rpartition("_")[2]
            assert config.algorithm.name == (named_for if named_for in ALGORITHMS else "bpc"), name


def test_jobs_are_composed_as_hydra_composes_them():
    register_schemas()
    jobs = [
        [f"seed={seed}", f"data={data}", f"inference.tolerance={tolerance}", f"optim.{args}"]
        for seed, data, tolerance, args in itertools.product(
            (0, 1),
            ("digits", "mnist"),
            ("null", "1e-3", "'${optim.param_lr}'"),
            ("param_args={b1: 0.8}", "param_args={b2: 0.9}", "param=sgd"),
        )
    ]
    with hydra.initialize_config_module("bpc_cli.configs", version_base="1.3"):
        sweep = hydra.compose("train", return_hydra_config=True)
        loader = GlobalHydra.instance().config_loader()
        composer = Composer(loader, sweep)
        for job in jobs:
            composed = composer.compose(job)
            expected = loader.load_sweep_config(sweep, job)
            assert OmegaConf.to_container(composed) == OmegaConf.to_container(expected)
            with open_dict(composed):  # what is done to one must not change the next
                composed.seed = composed.hydra.job.num = 99


@pytest.mark.parametrize("launcher", ["basic", "vmap"])
def test_a_job_that_cannot_be_composed_is_found_before_any_runs(launcher, command, tmp_path):
    done = command(
        *(
            "bpc-train",
            "-m",
            "data=digits",
            "seed=0,1",
            "model.width=8,x",
            f"hydra/launcher={launcher}",
        ),
        "hydra.sweep.dir=sweep",
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "bpc-train: model.width: Value 'x' of type 'str' could not be converted to Integer"
    ]
    assert not (tmp_path / "sweep" / "0").exists()
