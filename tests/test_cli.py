"""The real commands, as a user types them."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import hydra
import pytest
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from bpc_cli.errors import UserError
from bpc_cli.options.check import check_config, unknown_option
from bpc_cli.options.declare import option_fields, renamed_options
from bpc_cli.options.evaluation_schema import EvalConfig, register_schemas
from bpc_cli.options.names import SECTIONS
from bpc_cli.options.schema import TrainConfig

# One program with what other files train, which is compiled once.
PROJECT = Path(__file__).parents[1]
QUICK = ("data=digits", "model.width=32", "n_train_iters=25", "test_every=10")


@pytest.fixture(scope="session")
def trained(made_once, bpc_train) -> Path:
    """A finished run of `bpc-train` on digits."""

    def make(run: Path) -> None:
        code, _, err, _ = bpc_train(*QUICK, f"hydra.run.dir={run}")
        assert (code, err) == (0, "")

    return made_once("trained", make)


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_leaves_its_directory(own_process, tmp_path):
    done = own_process("bpc-train", *QUICK, "forward_energy_weight=1e-3")
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "outputs").glob("*/*")
    assert sorted(path.name for path in run.iterdir()) == [
        ".hydra",
        "checkpoints",
        "curves.png",
        "metrics.jsonl",
        "samples",
        "summary.json",
        "train.log",
    ]
    assert sorted(path.name for path in (run / ".hydra").iterdir()) == [
        "config.yaml",
        "hydra.yaml",
        "overrides.yaml",
    ]
    assert "forward_energy_weight: 0.001" in (run / ".hydra" / "config.yaml").read_text()
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        "best.ckpt",
        "last.ckpt",
        "previous.ckpt",
    ]
    grids = list((run / "samples").iterdir())
    assert [grid.name for grid in grids] == ["iteration_0000025.png"]  # save_samples keeps all
    for picture in [run / "curves.png", *grids]:
        with Image.open(picture) as image:
            image.verify()

    metrics = lines_of(run / "metrics.jsonl")
    assert [line["iteration"] for line in metrics] == list(range(1, 26))
    tested = {line["iteration"]: line for line in metrics if line["test_accuracy"] is not None}
    assert list(tested) == [10, 20, 25]
    assert metrics[22]["epoch"] == 1  # 1437 // 64 batches are an epoch

    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["data"]["name"] == "digits"
    assert summary["final"] == tested[25]
    best = max(tested.values(), key=lambda line: line["test_accuracy"])
    assert summary["best"]["test_accuracy"] == best["test_accuracy"]
    assert summary["peak_memory_mib"] > 50
    assert set(summary["seconds"]) >= {
        "to_first_step",
        "start_up",
        "compile",
        "train",
        "evaluate",
        "total",
    }

    # In a pipe: the example's lines, and no progress bar or colour.
    assert done.stderr == ""
    assert "\r" not in done.stdout and "\x1b" not in done.stdout
    expected = (
        f"Iter 10, gen loss={tested[10]['gen_loss']:.6f}, "
        f"amort loss={tested[10]['amort_loss']:.6f}, "
        f"avg amort test accuracy={tested[10]['test_accuracy']:.2f}"
    )
    assert done.stdout.splitlines()[0] == expected


def test_a_seed_fixes_everything(command, tmp_path, trained):
    command("bpc-train", *QUICK, "hydra.run.dir=again")
    command("bpc-train", *QUICK, "hydra.run.dir=other", "seed=1")

    def without_clock(path):
        return [{**line, "seconds": 0} for line in lines_of(path / "metrics.jsonl")]

    assert without_clock(tmp_path / "again") == without_clock(trained)
    assert without_clock(tmp_path / "other") != without_clock(trained)


def test_auto_warns_first_and_last_when_it_falls_back(command):
    done = command("bpc-train", *QUICK[1:], https_proxy="http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    first, *_, last = done.stdout.splitlines()
    assert first == last
    assert first.startswith("WARNING: MNIST is neither prepared nor reachable")
    assert "data.archive_dir=FOLDER" in first


def test_epochs_replace_iterations(command, tmp_path):
    done = command("bpc-train", *QUICK, "n_epochs=2", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    assert len(lines_of(tmp_path / "run" / "metrics.jsonl")) == 2 * (1437 // 64)


def test_every_option_reaches_the_run(command, tmp_path):
    done = command(
        "bpc-train",
        *("data=digits", "n_train_iters=6", "log_every=4", "experiment=published_discriminative"),
        *("model.depth=3", "model.width=16", "model.act_fn=gelu", "model.use_bias=true"),
        *("optim=adamw", "optim.param_args={weight_decay: 0.1}", "inference.n_steps=4"),
        *("optim.param_schedule=cosine_decay_schedule", "optim.activity_args.momentum=0.9"),
        "hydra.run.dir=run",
    )
    assert done.returncode == 0, done.stderr
    metrics = lines_of(tmp_path / "run" / "metrics.jsonl")
    assert [line["iteration"] for line in metrics] == [4, 6]
    config = (tmp_path / "run" / ".hydra" / "config.yaml").read_text()
    for line in ["forward_energy_weight: 0.001", "act_fn: gelu", "weight_decay: 0.1"]:
        assert line in config


def warnings_of(command: str, renamed: dict[str, str]) -> list[str]:
    return [
        f"{command}: WARNING: '{former}' is now '{now}'; the former name goes with the next release"
        for former, now in renamed.items()
    ]


def test_former_names_of_options_are_taken_with_a_line_of_warning_each(command, tmp_path):
    renamed = {
        "inference.start": "inference.init",
        "data.shift_share": "data.shift_fraction",
        "inference.label_decay": "inference.label_precision",
    }
    assert renamed_options(TrainConfig) == renamed
    done = command(
        *("bpc-train", *QUICK, "hydra.run.dir=run", "data.label_fraction=0.5", "data.shift=1"),
        *("inference.start=zeros", "data.shift_share=0.25", "inference.label_decay=0.125"),
    )
    assert (done.returncode, done.stderr.splitlines()) == (0, warnings_of("bpc-train", renamed))
    config = (tmp_path / "run" / ".hydra" / "config.yaml").read_text()
    for line in ("init: zeros", "shift_fraction: 0.25", "label_precision: 0.125"):
        assert line in config
    message = "'inference.start' is now 'inference.init'"
    assert unknown_option("inference.start", TrainConfig) == message


def test_eval_takes_former_names_and_todays_alike(command, tmp_path, trained):
    renamed = {
        "inference.activity": "optim.activity",
        "inference.activity_lr": "optim.activity_lr",
        "inference.forward_energy_weight": "forward_energy_weight",
        "inference.backward_energy_weight": "backward_energy_weight",
    }
    values = ("adam", "0.1", "0.5", "2")
    moved = {}
    for name, options in {"former": renamed.keys(), "today": renamed.values()}.items():
        words = [f"{option}={value}" for option, value in zip(options, values, strict=True)]
        done = command(
            *("bpc-eval", f"checkpoint={trained}", "inference.n_steps=3", *words),
            f"hydra.run.dir={name}",
        )
        expected = warnings_of("bpc-eval", renamed) if name == "former" else []
        assert (done.returncode, done.stderr.splitlines()) == (0, expected)
        moved[name] = json.loads((tmp_path / name / "metrics.json").read_text())["activity_change"]
    assert moved["former"] == moved["today"] > 0.01


@pytest.mark.slow
def test_eval_gives_the_activities_optimiser_its_arguments(command, tmp_path, trained):
    moved = []
    for name, words in {"plain": (), "momentum": ("optim.activity_args={momentum: 0.9}",)}.items():
        done = command(
            *("bpc-eval", f"checkpoint={trained}", "inference.n_steps=5", *words),
            f"hydra.run.dir={name}",
        )
        assert (done.returncode, done.stderr) == (0, "")
        metrics = json.loads((tmp_path / name / "metrics.json").read_text())
        moved.append(metrics["activity_change"])
    assert moved[0] < moved[1]


def test_a_sweep_runs_every_point_and_lists_what_failed(command, tmp_path):
    done = command(
        "bpc-train",
        *(*QUICK, "log_every=1,0,5", "-m"),
        "hydra.sweep.dir=sweep",
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "bpc-train: [log_every=0] log_every must be at least 1, not 0",
        "bpc-train: sweep/1: log_every must be at least 1, not 0",
        "bpc-train: 1 of 3 jobs failed",
    ]
    for job in ("0", "2"):
        summary = json.loads((tmp_path / "sweep" / job / "summary.json").read_text())
        assert summary["status"] == "finished"
    left = json.loads((tmp_path / "sweep" / "1" / "summary.json").read_text())
    assert left == {"status": "failed", "reason": "log_every must be at least 1, not 0"}


def test_eval_reports_the_runs_own_figures(command, tmp_path, trained):
    done = command("bpc-eval", f"checkpoint={trained}", "hydra.run.dir=eval")
    assert done.returncode == 0, done.stderr
    summary = json.loads((trained / "summary.json").read_text())
    metrics = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert metrics["test_accuracy"] == summary["final"]["test_accuracy"]
    assert metrics["generation_error"] == pytest.approx(summary["final"]["generation_error"])
    assert metrics["data_set"] == "digits" and metrics["test_examples"] == 360
    assert sum(map(sum, metrics["confusion"])) == 360
    assert f"{metrics['test_accuracy']:.2f} %" in done.stdout
    assert len([line for line in done.stdout.splitlines() if "  class " in line]) == 10
    for picture in ("confusion.png", "samples.png"):
        with Image.open(tmp_path / "eval" / picture) as image:
            image.verify()
    again = command("bpc-eval", f"checkpoint={trained}", "hydra.run.dir=eval")
    assert again.returncode == 1
    assert "already holds an evaluation" in again.stderr


def test_eval_takes_a_path_that_stands_alone(command, tmp_path, trained):
    awkward = tmp_path / "a run" / "it's [1],2\\"
    awkward.parent.mkdir()
    awkward.symlink_to(trained)
    for number, words in enumerate(
        [
            (str(trained),),
            ("which=best", str(trained / "checkpoints" / "last.ckpt")),
            ("-m", str(trained), "which=last,best"),
            ("a run/it's [1],2\\",),
        ]
    ):
        where = "hydra.sweep.dir" if "-m" in words else "hydra.run.dir"
        done = command("bpc-eval", *words, "inference.n_steps=0", f"{where}=eval-{number}")
        assert (done.returncode, done.stderr) == (0, ""), words
        assert len(list((tmp_path / f"eval-{number}").rglob("metrics.json"))) >= 1


NO_OPTION = "is no option: write NAME=VALUE"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("bpc-eval", "nowhere"), "there is no checkpoint at nowhere"),
        (
            ("bpc-eval", "a", "b"),
            "'b' is no option: write NAME=VALUE, or checkpoint=PATH just once",
        ),
        (
            ("bpc-eval", "a", "checkpoint=b"),
            "'a' is no option: write NAME=VALUE, or checkpoint=PATH just once",
        ),
        (("bpc-train", "outputs/x"), f"'outputs/x' {NO_OPTION}"),
    ],
)
def test_a_word_without_a_name_is_one_line(words, message, command, tmp_path):
    done = command(*words)
    assert (done.returncode, done.stderr) == (1, f"{words[0]}: {message}\n")
    assert list(tmp_path.iterdir()) == []


def test_eval_reads_best_or_a_file(command, tmp_path, trained):
    best = json.loads((trained / "summary.json").read_text())["best"]
    for arguments in (
        (f"checkpoint={trained}", "which=best"),
        (f"checkpoint={trained}/checkpoints/best.ckpt",),
    ):
        shutil.rmtree(tmp_path / "eval", ignore_errors=True)
        done = command("bpc-eval", *arguments, "hydra.run.dir=eval", "data=digits")
        assert done.returncode == 0, done.stderr
        metrics = json.loads((tmp_path / "eval" / "metrics.json").read_text())
        assert metrics["iteration"] == best["iteration"]


@pytest.mark.parametrize(
    ("program", "schema"), [("bpc-train", TrainConfig), ("bpc-eval", EvalConfig)]
)
def test_help_lists_every_option_once_in_its_section(program, schema, command):
    page = command(program, "--help").stdout
    sections = {block.split("\n")[0]: block for block in page.split("\n\n")}
    assert 3 <= sections["Examples"].count(f"  {program} ") <= 4
    for path, field in option_fields(schema):
        listed = [title for title, block in sections.items() if f"\n  {path} " in f"{block} "]
        listed += [title for title, block in sections.items() if f"\n  {path}\n" in block]
        section = field.metadata["section"] or path.partition(".")[0]
        assert listed == [SECTIONS[section]], path


def test_help_keeps_units_and_defaults(command):
    words = " ".join(command("bpc-train", "--help").stdout.split())
    assert "interval between lines of metrics.jsonl (iterations; default: 1)" in words
    assert "optax optimiser of activities (default: sgd)" in words


@pytest.mark.parametrize("program", ["bpc-train", "bpc-eval"])
def test_help_explains_without_importing_jax(own_process, program):
    done = own_process(program, "--help", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    assert "(default: " in done.stdout
    assert " hydra" in done.stderr
    assert " jax\n" not in done.stderr


def test_tab_completion_offers_group_names(command):
    done = command("bpc-train", "-sc", "query=bash", COMP_LINE="bpc-train data=")
    words = set(done.stdout.split())
    assert {"data=auto", "data=digits", "data=mnist", "data=fashion_mnist", "data=kmnist"} <= words


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("bpc-train inference.init=", ["amortised", "generative", "zeros", "noise", "null"]),
        ("bpc-train seed=1 on_instability=s", ["stop"]),
        ("bpc-train -m model.label_loss=squared,c", ["squared,cross_entropy"]),
        ("bpc-train model.use_bias=", ["true", "false"]),
        ("bpc-train algorithm.name=g", ["genpc"]),
        ("bpc-train algorithm=g", ["genpc"]),  # as all groups by Hydra
        ("bpc-train debug=", ["fast", "overfit_batch"]),
        ("bpc-eval which=", ["last", "best"]),
        ("bpc-eval lowest_energy=n", ["null"]),
        ("bpc-eval checkpoint=runs/m", ["runs/mine/"]),
        ("bpc-eval runs/mine/la", ["runs/mine/last.ckpt"]),
        ("bpc-eval ./r", ["./runs/"]),
    ],
)
def test_tab_completion_offers_values_and_paths(line, completed, command, tmp_path):
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "last.ckpt").touch()
    program, *_, word = line.split()
    option = "".join(word.partition("=")[:2]) if "=" in word else ""
    done = command(program, "-sc", "query=bash", COMP_LINE=line)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [f"{option}{value}" for value in completed]


def test_tab_completion_still_offers_options(command):
    done = command("bpc-eval", "-sc", "query=bash", COMP_LINE="bpc-eval runs/mine diagno")
    assert done.stdout.split() == ["diagnosis.", "diagnostics."]


@pytest.mark.slow
def test_compiled_programs_are_kept_where_asked_or_not_at_all(own_process, tmp_path):
    arguments = ("bpc-train", "data=digits", "n_train_iters=2", "model.depth=1")
    done = own_process(*arguments, "compute.compilation_cache=false", BPC_CACHE_DIR="cache")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "cache").exists()
    done = own_process(*arguments, BPC_CACHE_DIR="cache")
    assert done.returncode == 0, done.stderr
    kept = {path for path in (tmp_path / "cache").rglob("*") if path.name.endswith("-cache")}
    assert any("train_ensemble" in path.name for path in kept)
    (tmp_path / "file").touch()
    unusable = own_process(*arguments, BPC_CACHE_DIR="file")
    assert (unusable.returncode, unusable.stderr) == (0, "")
    again = own_process(*arguments, BPC_CACHE_DIR="cache")
    assert again.stdout.splitlines()[0] == done.stdout.splitlines()[0]
    assert kept == {p for p in (tmp_path / "cache").rglob("*") if p.name.endswith("-cache")}


def test_neither_tfds_nor_matplotlib_delays_the_first_step():
    program = (
        "import sys, bpc_cli.runs.recorder\n"
        "from bpc_cli.core.training import train_chunk\n"
        "assert 'matplotlib' not in sys.modules and 'tensorflow_datasets' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


WRONG = [
    ("forward_energy_weigth=1", "unknown option 'forward_energy_weigth'; did you mean forward_"),
    ("+forward_energy_weigth=1", "unknown option 'forward_energy_weigth'; did you mean forward_"),
    ("++model.wdth=1", "unknown option 'model.wdth'; did you mean model.width"),
    ("algorithm=bcp", "unknown algorithm 'bcp'; did you mean"),
    ("algorithm=bp inference.n_steps=3", "algorithm=bp has no activities to infer"),
    ("algorithm=bp inference.init=zeros", "algorithm=bp has no activities to infer"),
    ("mode=hybrd", "unknown mode 'hybrd'; did you mean hybrid?"),
    ("mode=hybrid", "mode=hybrid has latent units: say how many, as by model.latent=32"),
    ("model.latent=2", "model.latent=2: in mode=supervised the label is all of the top layer"),
    ("inference.latent_precision=1", "inference.latent_precision is the prior of latent units"),
    ("mode=hybrid model.latent=2 algorithm=bp", "algorithm=bp infers nothing"),
    ("mode=unsupervised model.latent=2 algorithm=discpc", "leave discpc no error"),
    (
        "mode=unsupervised model.latent=2 data.label_fraction=0.5",
        "mode=unsupervised has no label at all",
    ),
    (
        "mode=unsupervised model.latent=2 model.label_loss=cross_entropy",
        "model.label_loss is the loss at the label",
    ),
    ("algorithm=bp data.label_fraction=0.1", "algorithm=bp learns from labels alone"),
    ("algorithm=discpc data.label_fraction=0", "it would learn nothing"),
    ("data.label_fraction=0 data.unlabelled=drop", "no image is left to train on"),
    (
        "data.label_fraction=0.1 data.unlabelled=drop inference.label_precision=1",
        "and data.unlabelled=infer",
    ),
    ("data.n_train=1437 data.n_validation=1", "more than the 1437 training images of digits"),
    ("algorithm=genpc forward_energy_weight=0", "genpc would learn nothing"),
    ("algorithm=discpc backward_energy_weight=0", "discpc would learn nothing"),
    ("logger=tensorbord", "unknown logger 'tensorbord'; did you mean tensorboard"),
    ("logger=[mlflow,wndb]", "unknown logger 'wndb'; did you mean wandb"),
    ("foo", "'foo' is no option: write NAME=VALUE"),
    ("=1", "must be a string"),
    ("data=null", "must be a string"),
    ("seed=${foo}", "seed: Interpolation key 'foo' not found"),
    ("hydra/launcher=foo", "Could not find 'hydra/launcher/foo'"),
    ("--cfg job -m", "Only one of --run, --multirun, --cfg"),
    ("--foo", "unknown flag '--foo'"),
    ("batch_size=abc", "batch_size: Value 'abc' of type 'str' could not be converted to Integer"),
    ("batch_size=0", "batch_size must be at least 1, not 0"),
    ("batch_size=1438", "batch_size must be at most 1437, the size of the training set"),
    ("optim.param_lr=nan", "optim.param_lr must be a finite number"),
    ("optim.activity_lr=inf", "optim.activity_lr must be a finite number"),
    ("model.depth=null", "model.depth"),
    ("resume=nowhere", "there is no checkpoint at nowhere"),
    ("model.width=10000000", "model.width=10000000, model.depth=2, batch_size=64 need about"),
    ("model.width=99999999 model.depth=1000", "GiB"),
    ("model.depth=1001", "model.depth must be at most 1000"),
    ("data.augmentation.noize=1", "unknown data.augmentation 'noize'; did you mean noise?"),
    ("data.noise=1 data.augmentation.noise=1", "are both given: choose one"),
    ("data.augmentation.noise=-1", "data.augmentation.noise must be at least 0, and finite"),
    ("model=publishd", "unknown model 'publishd'; did you mean published? (known: "),
    ("data=mnits", "unknown data 'mnits'; did you mean mnist? (known: "),
    ("+experiment=typo", "unknown experiment 'typo' (known: "),
    ("optim.param=adm", "unknown optimiser 'adm'; known: "),
    ("optim.param_args.foo=1", "unexpected keyword argument 'foo'"),
    ("optim.param_schedule=foo", "unknown schedule 'foo'; known: "),
    ("data=mnist data.archive_dir=nowhere", "data.archive_dir=nowhere lacks "),
    (
        "data.mean=[0.4,0.5,0.6]",
        "data.mean must be one number, or 1 for images of 1 channel, not 3",
    ),
]


@pytest.mark.parametrize(("overrides", "message"), WRONG)
def test_wrong_input_is_one_line_and_leaves_nothing(overrides, message, bpc_train):
    words = overrides.split()
    data = [] if any(word.startswith("data=") for word in words) else ["data=digits"]
    code, out, err, left = bpc_train(*data, *words)
    assert code != 0
    assert len(err.splitlines()) == 1, err
    assert err.startswith("bpc-train: ")
    assert message in err
    assert (out, left) == ("", [])


# As the above, each of them one line that an error of `check_config` makes.
OUT_OF_RANGE = [
    ("data.label_fraction=0.5 model.label_loss=cross_entropy", "has no cross-entropy"),
    ("data.label_fraction=1.5", "data.label_fraction must be at most 1"),
    ("inference.label_precision=1", "the prior of labels that are free in training"),
    ("model.parameterisation=mup", "did you mean mupc?"),
    ("inference.forward_layer_weights=[1]", "must have model.depth = 2 numbers, not 1"),
    ("inference.backward_layer_weights=[1,-1]", "must be at least 0, and finite"),
    ("n_seeds=0", "n_seeds must be at least 1"),
    ("seed=4294967295 n_seeds=2", "seed + n_seeds must be at most 4294967296"),
    ("n_train_iters=0", "n_train_iters must be at least 1"),
    ("n_epochs=0", "n_epochs must be at least 1"),
    ("test_every=0", "test_every must be at least 1"),
    ("seed=-1", "seed must be at least 0"),
    ("seed=4294967296", "seed must be at most 4294967295"),
    ("optim.param_lr=-1", "optim.param_lr must be at least 0"),
    ("model.depth=0", "model.depth must be at least 1"),
    ("inference.n_steps=-1", "inference.n_steps must be at least 0"),
    ("forward_energy_weight=-1", "forward_energy_weight must be at least 0"),
    ("forward_energy_weight=0 backward_energy_weight=0", "nothing would be learnt"),
    ("checkpoint_every=0", "checkpoint_every must be a number of iterations (100) or of seconds"),
    ("checkpoint_every=5m", "checkpoint_every must be"),
    ("keep_every=0", "keep_every must be at least 1"),
    ("on_divergence=maybe", "unknown on_divergence 'maybe' (known: stop, continue_sweep)"),
    ("data.std=0", "data.std must be above 0"),
    ("data.std=[1,0,1]", "data.std must be above 0"),
    ("data.mean=[]", "data.mean must be a number, or a list with one for each channel, not []"),
    (
        "data.mean=half",
        "data.mean must be a number, or a list with one for each channel, not 'half'",
    ),
    ("compute.matmul_precision=f32", "unknown compute.matmul_precision 'f32'"),
    ("model.act_fn=rleu", "unknown model.act_fn 'rleu'; did you mean relu? (known: linear, relu"),
    ("data.name=../x", "data.name must be a data set's name"),
]


@pytest.fixture(scope="module")
def composed() -> DictConfig:
    register_schemas()
    with hydra.initialize_config_module("bpc_cli.configs", version_base="1.3"):
        return hydra.compose("train")


@pytest.mark.parametrize(("overrides", "message"), OUT_OF_RANGE)
def test_what_is_out_of_range_is_named(overrides, message, composed):
    config = OmegaConf.merge(composed, OmegaConf.from_dotlist(overrides.split()))
    with pytest.raises(UserError, match=re.escape(message)):
        check_config(config, TrainConfig)


NO_NETWORK = {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}


@pytest.mark.parametrize(
    "name", ["mnist", "fashion_mnist", "kmnist", "cifar10", "svhn_cropped", "emnist/letters"]
)
def test_a_data_set_that_cannot_be_reached_is_one_line(name, command, tmp_path):
    """Within seconds, whoever would download it; the library would try for minutes."""
    done = command("bpc-train", "data=mnist", f"data.name={name}", **NO_NETWORK)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert f"{name} is not prepared in {tmp_path}" in done.stderr
    assert "give data.archive_dir=FOLDER" in done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("data", ["auto", "mnist"])
def test_a_folder_of_pictures_is_no_data_directory(data, command, tmp_path):
    (tmp_path / "pngs").mkdir()
    (tmp_path / "pngs" / "a.png").touch()
    done = command("bpc-train", f"data={data}", "data.dir=pngs", **NO_NETWORK)
    assert done.returncode == 1
    assert done.stderr.startswith("bpc-train: data.dir=pngs holds other files, and no prepared")
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "pngs", tmp_path / "pngs" / "a.png"]


@pytest.fixture
def trained_elsewhere(few_images, command, tmp_path) -> Path:
    """A run on a data set in a directory that is not the usual one; both lie side by side."""
    shutil.copytree(few_images, tmp_path / "elsewhere")
    done = command(
        *("bpc-train", "data=mnist", "data.dir=elsewhere", "hydra.run.dir=run"),
        *("n_train_iters=4", "model.width=16", "batch_size=16"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    return tmp_path / "elsewhere"


def files_in(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_eval_finds_the_runs_data(trained_elsewhere, command, tmp_path):
    """In the run's directory unless another is given, and it writes nothing there."""
    before = files_in(trained_elsewhere)
    done = command("bpc-eval", "checkpoint=run", "hydra.run.dir=eval", **NO_NETWORK)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((tmp_path / "eval" / "metrics.json").read_text())["test_examples"] == 20
    assert files_in(trained_elsewhere) == before

    other = command("bpc-eval", "checkpoint=run", "data.dir=other", **NO_NETWORK)
    assert other.returncode == 1
    assert other.stderr.startswith("bpc-eval: mnist is not prepared in other and its download")

    labels = trained_elsewhere / "bpc_packed" / "mnist" / "test_labels.npy"
    labels.write_bytes(labels.read_bytes()[:-1])
    damaged = files_in(trained_elsewhere)
    done = command("bpc-eval", "checkpoint=run", **NO_NETWORK)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert done.stderr.endswith("; the run's data.dir=elsewhere has it no more\n")
    assert files_in(trained_elsewhere) == damaged

    trained_elsewhere.rename(tmp_path / "moved")
    assert command("bpc-eval", "checkpoint=run", **NO_NETWORK).returncode == 1
    usual = command("bpc-eval", "checkpoint=run", TFDS_DATA_DIR="moved", **NO_NETWORK)
    assert (usual.returncode, usual.stderr) == (
        0,
        "moved/bpc_packed/mnist is damaged: making it anew\n",
    )
    given = command("bpc-eval", "checkpoint=run", "data.dir=moved", **NO_NETWORK)
    assert (given.returncode, given.stderr) == (0, "")


@pytest.mark.slow
def test_eval_takes_the_runs_archives_while_they_are_there(
    command, tmp_path, mnist_data, mnist_archives
):
    shutil.copytree(mnist_data, tmp_path / "elsewhere")
    given = tmp_path / "archives"
    shutil.copytree(mnist_archives, given)
    words = ("data=mnist", "data.dir=elsewhere", f"data.archive_dir={given}", "n_train_iters=2")
    done = command("bpc-train", *words, "hydra.run.dir=run", **NO_NETWORK)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(tmp_path / "elsewhere")
    (given / "t10k-labels-idx1-ubyte.gz").write_bytes(b"")
    done = command("bpc-eval", "run", "inference.n_steps=0", **NO_NETWORK)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert f"{given}/t10k-labels-idx1-ubyte.gz has the wrong checksum" in done.stderr
    shutil.rmtree(given)
    prepared = NO_NETWORK | {"TFDS_DATA_DIR": str(mnist_data)}
    done = command("bpc-eval", "run", "inference.n_steps=0", **prepared)
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", ["huggingface:a/b", "kaggle:a", "../x", "a b"])
def test_the_name_of_a_strangers_data_set_is_no_address(name, command, tmp_path, trained):
    """TFDS follows addresses of other libraries and repositories, which may hold code."""
    content = (trained / "checkpoints" / "last.ckpt").read_bytes()
    first, rest = content.split(b"\n", 1)
    magic, version, _, length = first.split()
    header = json.loads(rest[: int(length)]) | {"data_set": name}
    encoded = json.dumps(header).encode()
    line = b" ".join([magic, version, sha256(encoded).hexdigest().encode(), b"%d" % len(encoded)])
    (tmp_path / "x.ckpt").write_bytes(line + b"\n" + encoded + rest[int(length) :])
    done = command("bpc-eval", "checkpoint=x.ckpt", **NO_NETWORK)
    assert done.returncode == 1
    assert done.stderr.startswith(
        "bpc-eval: x.ckpt has a header that bpc does not write (wrong data"
    )


def damage_checkpoint(source: Path, target: Path, how: str) -> None:
    content = source.read_bytes()
    if how == "truncated":
        content = content[: len(content) // 2]
    elif how == "one bit flipped":
        content = content[:-100] + bytes([content[-100] ^ 4]) + content[-99:]
    elif how == "not a checkpoint":
        content = b"PK\x03\x04 something else"
    target.write_bytes(content)


@pytest.mark.parametrize("how", ["missing", "truncated", "one bit flipped", "not a checkpoint"])
def test_a_bad_checkpoint_is_one_line_and_leaves_nothing(how, command, tmp_path, trained):
    if how != "missing":
        damage_checkpoint(trained / "checkpoints" / "last.ckpt", tmp_path / "x.ckpt", how)
    before = os.listdir(tmp_path)
    done = command("bpc-eval", "checkpoint=x.ckpt")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "x.ckpt" in done.stderr
    assert os.listdir(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": {"model": {"_target_": "os.system"}}}, "unknown option 'model._target_'"),
        ({"config": "nonsense"}, "config"),
        ({"class_names": ["a", "b"]}, "another shape"),
        ({"image_shape": [2**30, 2**30, 3]}, "another shape"),
    ],
)
def test_a_strangers_header_is_not_believed(change, message, command, tmp_path, trained):
    """A checkpoint with valid checksums whose header lies: nothing is executed or allocated."""
    import equinox as eqx
    import jax.numpy as jnp

    from bpc_cli.runs.checkpoints.checkpoint import read_checkpoint, save_checkpoint

    header = read_checkpoint(trained / "checkpoints" / "last.ckpt").header
    state = {"x": jnp.zeros(3)}
    assert eqx.is_array(state["x"])
    save_checkpoint(tmp_path / "x.ckpt", state, header | change)
    done = command("bpc-eval", "checkpoint=x.ckpt")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert message in done.stderr or "does not describe a model" in done.stderr


def test_eval_wants_a_checkpoint(command, tmp_path):
    done = command("bpc-eval")
    assert (done.returncode, done.stderr) == (1, "bpc-eval: checkpoint must be given\n")
    assert os.listdir(tmp_path) == []


def test_a_finished_run_is_not_touched(command, tmp_path, trained):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    done = command("bpc-train", *QUICK, "hydra.run.dir=run")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "run holds this run, finished: nothing to do\n"
    for overrides, message in (
        (("model.width=9", "seed=4"), "seed (was 0, now 4), model.width (was 32, now 9); give"),
        (("n_train_iters=7",), "7 iterations are wanted, and 25 are done"),
    ):
        done = command("bpc-train", *QUICK, *overrides, "hydra.run.dir=run")
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert message in done.stderr
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert before == after


def test_divergence_names_the_iteration_and_keeps_what_there_is(command, tmp_path):
    done = command(
        "bpc-train",
        *(*QUICK, "test_every=1", "n_train_iters=50", "optim.param=sgd"),
        *("optim.param_lr=0.6", "hydra.run.dir=run"),
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    run = tmp_path / "run"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "diverged"
    metrics = lines_of(run / "metrics.jsonl")
    assert "NaN" not in (run / "metrics.jsonl").read_text()
    assert f"at iteration {metrics[-1]['iteration']} " in done.stderr
    assert summary["final"]["iteration"] == metrics[-1]["iteration"] - 1
    evaluated = command("bpc-eval", "checkpoint=run", "hydra.run.dir=eval")
    assert evaluated.returncode == 0, evaluated.stderr


@pytest.mark.parametrize("on_divergence", ["continue_sweep", "stop"])
def test_a_diverging_job_ends_a_sweep_only_if_asked(on_divergence, command, tmp_path):
    done = command(
        "bpc-train",
        *("-m", *QUICK, "optim.param=sgd", "optim.param_lr=1e30,1e-3"),
        *(f"on_divergence={on_divergence}", "hydra.sweep.dir=sweep"),
    )
    assert done.returncode == 1
    assert "training diverged: at iteration " in done.stderr
    *_, reason, verdict = done.stderr.splitlines()
    assert reason.startswith("bpc-train: sweep/0: training diverged")
    ended = on_divergence == "stop"
    assert (
        verdict
        == f"bpc-train: 1 {'failed, which ended the sweep' if ended else 'of 2 jobs failed'}"
    )
    assert re.search(f"^  1  .* {'not run' if ended else 'finished'}$", done.stdout, re.MULTILINE)
    assert json.loads((tmp_path / "sweep/0/summary.json").read_text())["status"] == "diverged"
    goes_on = on_divergence == "continue_sweep"
    assert (tmp_path / "sweep" / "1" / "summary.json").exists() == goes_on


def test_checkpoints_of_every_format_can_be_read(command, tmp_path):
    """Format 1: a run of digits at width 3, whose summary said 11.94 % and 0.26594."""
    for path in (Path(__file__).parent / "checkpoints").iterdir():
        done = command("bpc-eval", f"checkpoint={path}", f"hydra.run.dir={path.stem}")
        assert done.returncode == 0, done.stderr
        metrics = json.loads((tmp_path / path.stem / "metrics.json").read_text())
        assert metrics["iteration"] == 20
        assert metrics["test_accuracy"] == pytest.approx(11.944, abs=0.3)
        assert metrics["generation_error"] == pytest.approx(0.265935, rel=1e-4)
    old = Path(__file__).parent / "checkpoints" / "format_1.ckpt"
    done = command("bpc-train", "data=digits", f"resume={old}")
    assert done.returncode == 1
    assert "format_1.ckpt cannot be resumed: it can only be evaluated" in done.stderr


@pytest.mark.slow
def test_the_wheel_carries_every_config_and_runs_alone(tmp_path):
    project = PROJECT
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path / "dist")]
    subprocess.run([*build, str(project)], check=True, timeout=300, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    target = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    subprocess.run([*install, str(target), str(wheel)], check=True, timeout=300)
    configs = {path.relative_to(project / "configs") for path in project.glob("configs/**/*.yaml")}
    packaged = target / "bpc_cli" / "configs"
    assert configs == {path.relative_to(packaged) for path in packaged.glob("**/*.yaml")}
    environment = os.environ | {"PYTHONPATH": str(target)}
    program = "import bpc_cli.train as train; print(train.__file__); train.main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "data=digits", "n_train_iters=2"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert done.stdout.startswith(str(target))


@pytest.mark.parametrize("text", ["README.md", "docs/library.md"])
def test_a_python_example_runs(text, tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", (PROJECT / text).read_text(), re.DOTALL)
    subprocess.run([sys.executable, "-c", example], cwd=tmp_path, check=True, timeout=300)


@pytest.mark.parametrize("program", ["bpc-train", "bpc-eval"])
def test_the_documented_commands_compose(program, command, tmp_path):
    texts = [PROJECT / "README.md", *PROJECT.glob("docs/*.md")]
    lines = "\n".join(text.read_text() for text in texts).replace("\\\n", " ")
    commands = re.findall(rf"^\$ {program} (.*)$", lines, re.MULTILINE)
    commands += re.findall(rf"`{program} ([^`]*=[^`]*)`", lines.replace("\n  ", " "))
    assert len(commands) >= {"bpc-train": 15, "bpc-eval": 2}[program]
    for line in commands:
        words = shlex.split(line, comments=True)
        if "hydra/launcher=submitit_slurm" in words:  # and there is no Slurm here
            words = [word for word in words if not word.startswith("hydra")]
        if not {"--help", "--dry-run", "--where", "--clear-cache"} & {*words}:
            checked = ("--dry-run",) if "-m" in words else ("--cfg", "job")
            done = command(program, *words, *checked)
            assert done.returncode == 0, done.stderr
