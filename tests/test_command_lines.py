"""Command lines nobody thought of: a wrong one is one line, and a right one composes."""

import dataclasses
import json
import re
import typing

import hydra
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from bpc_cli.options.check import check_config
from bpc_cli.options.declare import option_fields, option_paths
from bpc_cli.options.evaluation_schema import register_schemas
from bpc_cli.options.schema import TrainConfig

OPTIONS = {path: field.metadata for path, field in option_fields(TrainConfig)}
GROUPS = {
    "algorithm": ["bpc", "hpc", "discpc", "genpc", "bp"],
    "model": ["published", "paper"],
    "optim": ["adam", "adamw", "sgd", "adam_cosine"],
    "inference": ["published", "paper"],
    "data": ["auto", "mnist", "fashion_mnist", "kmnist", "digits", "cifar10", "svhn_cropped"],
    "logger": ["jsonl", "tensorboard", "wandb", "mlflow"],
    "experiment": [
        *("published", "published_discriminative", "authors_notebook", "best_mnist"),
        *(f"best_mnist_{name}" for name in ("hpc", "discpc", "genpc", "bp")),
        *(f"paper_mnist_{name}" for name in ("bpc", "hpc", "discpc", "genpc", "bp")),
    ],
}
words = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=12)


def kind_of(path: str) -> type:
    """The type of an option's value, other than None."""
    kind: typing.Any = TrainConfig
    for name in path.split("."):
        kind = typing.get_type_hints(kind)[name]
    if typing.get_origin(kind) is list:
        return list
    return next((each for each in typing.get_args(kind) if each is not type(None)), kind)


@st.composite
def misspelt_names(draw):
    path = draw(st.sampled_from(sorted(OPTIONS)))
    at = draw(st.integers(0, len(path) - 1))
    letter = draw(st.sampled_from("abcxyz_."))
    wrong = draw(
        st.sampled_from(
            [
                path[:at] + path[at + 1 :],
                path[:at] + letter + path[at:],
                path[:at] + letter + path[at + 1 :],
            ]
        )
    )
    free = [f"{path}." for path, limits in OPTIONS.items() if limits["takes_any_keys"]]
    assume(wrong not in OPTIONS and wrong not in GROUPS and not wrong.startswith(tuple(free)))
    return draw(st.sampled_from(["", "+", "++", "~"])) + wrong + "=1"


@st.composite
def wrong_types(draw):
    path = draw(st.sampled_from([path for path in OPTIONS if kind_of(path) in (int, float, bool)]))
    value = draw(st.one_of(words, st.sampled_from(["[1]", "{a: 1}", "''", "1e", "0x", "${nope}"])))
    assume(value.lower() not in ("null", "true", "false", "yes", "no", "on", "off", "nan", "inf"))
    assume(value.lower() not in ("y", "n"))
    return f"{path}={value}"


@st.composite
def out_of_range(draw):
    bounded = [path for path in OPTIONS if OPTIONS[path]["at_least"] is not None]
    path = draw(st.sampled_from([*bounded, "data.std"]))
    value = draw(st.one_of(st.integers(-(10**6), -1), st.just("-inf")))
    return f"{path}={value}"


@st.composite
def unknown_choices(draw):
    group, known = draw(st.sampled_from(sorted(GROUPS.items())))
    name = draw(words)
    assume(name not in known)
    return draw(st.sampled_from(["", "+"])) + f"{group}={name}"


@st.composite
def wrong_choices(draw):
    path = draw(st.sampled_from([path for path in OPTIONS if OPTIONS[path]["choices"]]))
    value = draw(words)
    assume(value not in (*OPTIONS[path]["choices"], "null"))
    return f"{path}={value}"


@st.composite
def nonsense(draw):
    text = draw(st.text(min_size=1, max_size=20))
    assume("\0" not in text and not text.startswith("-") and text.strip())
    assume(not text.encode("utf-8", "surrogatepass").decode("utf-8", "ignore").isspace())
    name = text.lstrip("+~").partition("=")[0].split("@")[0]
    assume(name not in OPTIONS and name not in GROUPS)
    return text


def is_one_line_and_leaves_nothing(line, bpc_train):
    code, out, err, left = bpc_train("data=digits", "n_train_iters=1", line)
    assert code == 1, (line, code, out)
    assert err.startswith("bpc-train: ") and err.count("\n") == 1, err
    assert "Traceback" not in err
    assert (out, left) == ("", [])


WRONG = st.one_of(
    misspelt_names(), wrong_types(), out_of_range(), unknown_choices(), wrong_choices(), nonsense()
)
FIXTURES_ARE_FINE = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=15, deadline=None, suppress_health_check=FIXTURES_ARE_FINE)
@given(line=WRONG)
@example(line="two\nlines")
def test_wrong_lines(line, bpc_train):
    is_one_line_and_leaves_nothing(line, bpc_train)


@pytest.mark.slow
def test_many_wrong_lines(n_lines, bpc_train):
    @settings(max_examples=n_lines, deadline=None, suppress_health_check=FIXTURES_ARE_FINE)
    @given(line=WRONG)
    def each(line):
        is_one_line_and_leaves_nothing(line, bpc_train)

    each()


@st.composite
def right_values(draw, path: str):
    limits, kind = OPTIONS[path], kind_of(path)
    if path == "plots.format":
        return f"[{draw(st.sampled_from(limits['choices']))}]"
    if limits["per_channel"]:
        return draw(st.sampled_from(["0.5", "1", "[0.5]", "[0.5,0.4,1]"]))
    if path in ("model.channels", "model.label_widths"):
        return draw(st.sampled_from(["[1]", "[4,8]"]))
    if limits["choices"]:
        return draw(st.sampled_from(limits["choices"]))
    if limits["or_word"]:
        return draw(st.sampled_from(["1", "2", limits["or_word"]]))
    if path == "checkpoint_every":
        return draw(st.sampled_from(["1", "250", "0.5s", "60s"]))
    if kind is bool:
        return draw(st.sampled_from(["true", "false"]))
    if kind in (int, float):
        low = limits["at_least"] if limits["at_least"] is not None else 1
        high = min(10**6, limits["at_most"] or 10**6)
        whole = draw(st.integers(max(low, 1), high))
        return whole if kind is int else whole / 7
    if path.endswith("_layer_weights"):
        return "null"  # there must be model.depth of them
    if limits["takes_any_keys"]:
        return draw(st.sampled_from(["{}", "{b1: 0.5}", "{weight_decay: 1e-3}"]))
    return draw(st.sampled_from(["mnist", "adam", "sgd"]))


@st.composite
def right_lines(draw):
    paths = draw(st.lists(st.sampled_from(sorted(OPTIONS)), max_size=6, unique=True))
    groups = draw(st.lists(st.sampled_from(sorted(GROUPS)), max_size=3, unique=True))
    chosen = [f"{group}={draw(st.sampled_from(GROUPS[group]))}" for group in groups]
    line = chosen + [f"{path}={draw(right_values(path))}" for path in paths]
    labels = {"data.label_fraction", "data.unlabelled", "inference.label_precision"}
    labels |= {"mode", "model.latent", "inference.latent_precision"}
    labels |= {"compute.coordinator", "compute.n_processes", "compute.process"}  # all or none
    assume(not any(word.partition("=")[0] in labels for word in line))  # they combine with little
    infers = any(word.startswith(("inference", "experiment")) for word in line)
    said = " ".join(line)  # what is defined for some models alone
    assume(not ("bimodal" in said and re.search("discpc|discriminative|mupc", said)))
    # The notebook's energy has a weight for each of its layers.
    assume(not ("authors_notebook" in said and re.search(r"model(\.name|\.depth)?=", said)))
    assume(not ("mupc" in said and re.search("model(.name)?=(cnn|vgg)|cifar", said)))
    assume(not (infers and any(word.endswith(("=bp", "_bp")) for word in line)))
    return line


def composes(line):
    register_schemas()
    with hydra.initialize_config_module("bpc_cli.configs", version_base="1.3"):
        config = check_config(hydra.compose("train", line), TrainConfig)
    said = dict(word.split("=", 1) for word in line)
    assert config.seed == int(said.get("seed", 0))
    assert set(dataclasses.asdict(config)) == {
        path.split(".")[0] for path in option_paths(TrainConfig)
    }


@settings(max_examples=15, deadline=None, suppress_health_check=FIXTURES_ARE_FINE)
@given(line=right_lines())
def test_right_lines_compose(line):
    composes(line)


@pytest.mark.slow
def test_many_right_lines_compose(n_lines):
    @settings(max_examples=n_lines, deadline=None, suppress_health_check=FIXTURES_ARE_FINE)
    @given(line=right_lines())
    def each(line):
        composes(line)

    each()


OF_ONES_OWN = [
    ("algorithm", "name", "hpc"),
    *(
        ("data", *each)
        for each in (("name", "mnist"), ("dir", "here"), ("noise", 0.5), ("shift", 2))
    ),
    *(("model", *each) for each in (("width", 12), ("depth", 5), ("use_bias", True))),
    *(("optim", *each) for each in (("param", "adamw"), ("param_args", {"b1": 0.5}))),
    *(("inference", *each) for each in (("n_steps", 7), ("reduction", "sum"))),
    *(("logger", *each) for each in (("tensorboard", True), ("wandb_project", "mine"))),
    *(("experiment", *each) for each in (("seed", 5), ("model", {"width": 12}))),
]


@pytest.mark.parametrize(("group", "key", "value"), OF_ONES_OWN)
def test_a_file_of_ones_own_with_one_key_composes(group, key, value, command, tmp_path):
    """The key has its value, and every other option of the group its default."""
    path = tmp_path / "own" / group / "mine.yaml"
    path.parent.mkdir(parents=True)
    head = "# @package _global_\n" if group == "experiment" else ""
    path.write_text(head + json.dumps({key: value}))
    done = command("bpc-train", "--config-dir", "own", f"{group}=mine", "--cfg", "job")
    assert (done.returncode, done.stderr) == (0, "")
    config = dataclasses.asdict(check_config(OmegaConf.create(done.stdout), TrainConfig))
    options = config if group == "experiment" else config[group]
    chosen = options[key] if not isinstance(value, dict) else options[key] | value
    assert chosen == options[key] and (isinstance(value, dict) or chosen == value)


@pytest.mark.parametrize("key", ["name", "dir"])
def test_a_data_set_of_ones_own_has_pixels_as_they_are(key, command, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text(f"{key}: mnist")
    for program, scale in (("bpc-train", (0.0, 1.0)), ("bpc-eval", (None, None))):
        done = command(program, "--config-dir", ".", "data=mine", "--cfg", "job")
        assert (done.returncode, done.stderr) == (0, "")
        data = OmegaConf.create(done.stdout).data
        assert (data[key], data.mean, data.std, data.archive_dir) == ("mnist", *scale, None)
