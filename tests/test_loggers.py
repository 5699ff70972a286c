"""What TensorBoard, Weights & Biases and MLflow are told is what the run measured."""

import importlib.util
import json
import math
import shutil
import struct
import types

import pytest
import yaml
from run_files import lines_of

from bpc_cli.errors import UserError
from bpc_cli.runs.loggers.tensorboard import TensorBoard
from bpc_cli.runs.loggers.tracked_run import TrackedRun
from bpc_cli.runs.loggers.trackers import TRACKERS, require_extras

pytest.importorskip("tensorboardX", reason="the extra tensorboard")
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

SMALL = ("data=digits", "model.width=32", "n_train_iters=20", "test_every=10")


def events_of(folder):
    """Read TensorBoard's event files, oldest first."""
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = Event()
            event.ParseFromString(content[12 : 12 + length])
            yield event
            content = content[12 + length + 4 :]


def values_of(folder):
    """Collect a run's values as TensorBoard shows them: what is purged is not there."""
    values = {}
    for event in events_of(folder):
        if event.HasField("session_log"):
            values = {key: value for key, value in values.items() if key[1] < event.step}
        for value in event.summary.value:
            values[value.tag, event.step] = value
    return values


def test_event_files_hold_the_metrics(bpc_train, tmp_path):
    run = tmp_path / "run"
    arguments = (*SMALL, "logger=tensorboard", f"hydra.run.dir={run}")
    assert bpc_train(*arguments, "n_train_iters=10")[0] == 0
    code, _, err, _ = bpc_train(*arguments)  # goes on, in a second event file
    assert (code, err) == (0, "")
    values = values_of(run / "tensorboard")
    for line in lines_of(run):
        for name in ("gen_loss", "amort_loss", "energy_after", "test_accuracy"):
            if line[name] is None:
                assert (name, line["iteration"]) not in values
            else:
                shown = values[name, line["iteration"]].simple_value
                assert math.isclose(shown, line[name], rel_tol=1e-6)
    for iteration in (10, 20):
        assert values["samples", iteration].image.encoded_image_string.startswith(b"\x89PNG")
        weights = values["weights/generator_0", iteration].histo
        assert weights.num == 10 * 32
        assert -1 < weights.min < weights.max < 1
        assert values["activities/z_0", iteration].histo.num == 360 * 32


def test_event_files_of_one_second_do_not_replace_each_other(tmp_path):
    for first in (1, 11, 21):
        logger = TensorBoard(TrackedRun(tmp_path, {"batch_size": 7}, first, "run", None))
        logger.lines([{"iteration": first, "seed": 0, "gen_loss": 0.5}])
        logger.close("interrupted")
    values = values_of(tmp_path / "tensorboard")
    assert [step for tag, step in values if tag == "gen_loss"] == [1, 11, 21]
    assert ("config/text_summary", 0) in values


def test_hyperparameters_and_config_are_written_once(bpc_train, tmp_path):
    run = tmp_path / "run"
    arguments = (*SMALL, "optim.activity_args={momentum: 0.5}", "logger=tensorboard")
    for n_iters in (10, 20):
        code, *_ = bpc_train(*arguments, f"n_train_iters={n_iters}", f"hydra.run.dir={run}")
        assert code == 0
    values = [value for event in events_of(run / "tensorboard") for value in event.summary.value]
    (text,) = (value.tensor for value in values if value.tag == "config/text_summary")
    fenced = text.string_val[0].decode().removeprefix("```yaml").removesuffix("```")
    assert yaml.safe_load(fenced)["optim"]["activity_args"] == {"momentum": 0.5}
    found = {}
    for value in values:
        if value.metadata.plugin_data.plugin_name == "hparams":
            found.setdefault(value.tag, []).append(
                HParamsPluginData.FromString(value.metadata.plugin_data.content)
            )
    (experiment,) = found["_hparams_/experiment"]
    (start,) = found["_hparams_/session_start_info"]
    assert found["_hparams_/session_end_info"][0].session_end_info.status == 1  # success
    shown = start.session_start_info.hparams
    assert shown["forward_energy_weight"].number_value == 1
    assert shown["optim.activity_args.momentum"].number_value == 0.5
    assert shown["model.act_fn"].string_value == "relu"
    columns = {metric.name.tag for metric in experiment.experiment.metric_infos}
    assert columns == {"test_accuracy", "generation_error"} & {value.tag for value in values}


def test_what_was_written_before_the_first_checkpoint_is_not_shown_twice(tmp_path):
    """A run that is killed before its first checkpoint begins anew, in the same folder."""
    run = TrackedRun(tmp_path, {"seed": 0}, first=1, name="run", sweep=None)
    for n_iters in (5, 2):
        logger = TensorBoard(run)
        logger.lines([{"iteration": i, "seed": 0, "gen_loss": 0.5} for i in range(1, n_iters + 1)])
        logger.close("interrupted")
    shown = {key for key in values_of(tmp_path / "tensorboard") if key[0] == "gen_loss"}
    assert shown == {("gen_loss", 1), ("gen_loss", 2)}


def test_each_seed_has_its_own_scalars(bpc_train, tmp_path):
    run = tmp_path / "run"
    code, _, err, _ = bpc_train(
        *SMALL, "n_seeds=3", "seed=3", "logger=tensorboard", f"hydra.run.dir={run}"
    )
    assert (code, err) == (0, "")
    values = values_of(run / "tensorboard")
    for line in lines_of(run):
        shown = values[f"gen_loss/seed_{line['seed']}", line["iteration"]].simple_value
        assert math.isclose(shown, line["gen_loss"], rel_tol=1e-6)
    mean = sum(line["gen_loss"] for line in lines_of(run)[-3:]) / 3
    assert math.isclose(values["gen_loss", 20].simple_value, mean, rel_tol=1e-6)


def test_a_logger_that_fails_warns_once_and_ends_no_run(bpc_train, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "tensorboard").write_text("not a folder")
    code, out, err, _ = bpc_train(*SMALL, "logger=tensorboard", f"hydra.run.dir={run}")
    assert (code, err) == (0, "")
    assert out.count("WARNING") == 1
    assert "the run continues without" in out
    assert len(lines_of(run)) == 20


@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_that_is_not_installed_is_named_with_its_extra(name, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    options = types.SimpleNamespace(**(dict.fromkeys(TRACKERS, False) | {name: True}))
    with pytest.raises(UserError, match=rf"^logger\.{name} needs .* 'bpc-cli\[{name}\]'$"):
        require_extras(options)


def leveldb_records(content):
    """Read LevelDB's log format, which wandb's files have after 7 bytes of their own."""
    position, parts, records = 7, b"", []
    while position + 7 <= len(content):
        left = 32_768 - position % 32_768
        if left < 7:  # the rest of a block that has no room for a header
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + 7])
        parts += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            records.append(parts)
            parts = b""
    return records


@pytest.mark.slow
def test_weights_and_biases_works_offline(own_process, tmp_path):
    pytest.importorskip("wandb", reason="the extra wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    arguments = (*SMALL, "forward_energy_weight=1,0.1", "logger=wandb", "hydra.sweep.dir=sweep")
    done = own_process("bpc-train", "-m", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    for job, name in enumerate(("α_f=1", "α_f=0.1")):
        run = tmp_path / "sweep" / str(job)
        (log,) = (run / "wandb").glob("offline-run-*/*.wandb")
        logged, named = {}, []
        for data in leveldb_records(log.read_bytes()):
            record = Record.FromString(data)
            if record.HasField("run"):
                named.append((record.run.display_name, record.run.run_group))
            step = {
                item.key or "/".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            if step:
                logged.setdefault(step["_step"], {}).update(step)
        assert set(named) == {(name, "sweep")}
        for line in lines_of(run):
            assert math.isclose(logged[line["iteration"]]["gen_loss"], line["gen_loss"])
        assert any(key.startswith("samples") for key in logged[10])


@pytest.mark.slow
def test_mlflow_has_every_metric_once(command, tmp_path):
    pytest.importorskip("mlflow", reason="the extra mlflow")
    from mlflow.tracking import MlflowClient

    run, kept = tmp_path / "run", tmp_path / "kept"
    arguments = (*SMALL, "n_seeds=2", "logger=[mlflow,tensorboard]", "hydra.run.dir=run")
    for n_iters in (10, 20):
        if n_iters == 20:
            shutil.copytree(run, kept)
        done = command("bpc-train", *arguments, f"n_train_iters={n_iters}")
        assert (done.returncode, done.stderr) == (0, "")
    shutil.rmtree(run)
    kept.rename(run)  # as it was when it had been killed after it had logged, and before it saved
    done = command("bpc-train", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    client = MlflowClient(f"sqlite:///{tmp_path}/outputs/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'bpc'")
    (logged,) = client.search_runs([experiment.experiment_id])
    assert (logged.info.run_name, logged.info.status) == ("run", "FINISHED")
    assert logged.data.params["model.width"] == "32"
    assert logged.data.params["optim.param"] == "adam"
    assert logged.data.params["inference.n_steps"] == "null"
    wanted = {}
    for line in lines_of(run):
        for name in line.keys() - {"iteration", "epoch", "seed", "seconds"}:
            if line[name] is not None:
                wanted[f"{name}/seed_{line['seed']}", line["iteration"]] = line[name]
    histories = [
        client.get_metric_history(logged.info.run_id, name) for name in logged.data.metrics
    ]
    values = [(m.key, m.step, m.value) for history in histories for m in history]
    assert sorted(each for each in values if "/" in each[0]) == sorted(
        (*key, value) for key, value in wanted.items()
    )
    assert len(values) == len(wanted) * 3 / 2  # each mean beside its two seeds
    artifacts = {each.path for each in client.list_artifacts(logged.info.run_id, "samples")}
    assert artifacts == {f"samples/iteration_00000{number}.png" for number in (10, 20)}
    client.delete_run(logged.info.run_id)
    assert command("bpc-train", *arguments, "n_train_iters=30").returncode == 0
    (another,) = client.search_runs([experiment.experiment_id])
    assert {m.step for m in client.get_metric_history(another.info.run_id, "gen_loss")} == {
        *range(21, 31)
    }


@pytest.mark.slow
def test_jobs_of_a_sweep_make_one_mlflow_database_together(own_process, tmp_path):
    pytest.importorskip("mlflow", reason="the extra mlflow")
    pytest.importorskip("joblib", reason="the extra sweep")
    from mlflow.tracking import MlflowClient

    arguments = (*SMALL, "seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    done = own_process("bpc-train", "-m", *arguments, "logger=mlflow", "hydra.sweep.dir=sweep")
    assert (done.returncode, done.stderr) == (0, "")
    client = MlflowClient(f"sqlite:///{tmp_path}/outputs/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'bpc'")
    runs = client.search_runs([experiment.experiment_id], "tags.sweep = 'sweep'")
    assert {run.info.run_name for run in runs} == {"seed=0", "seed=1"}
    for run in runs:
        history = client.get_metric_history(run.info.run_id, "gen_loss")
        lines = lines_of(tmp_path / "sweep" / run.info.run_name.removeprefix("seed="))
        assert [m.value for m in history] == [line["gen_loss"] for line in lines]
