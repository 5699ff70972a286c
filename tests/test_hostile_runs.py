"""Whatever a run directory holds, a report is made, and nothing outside is read or written."""

import csv
import io
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import hostile_contents
import hostile_runs
import pytest
from conftest import program_path
from hostile_runs import CANARY, CANARY_ACCURACY, PLACES, Harm, make_outside, make_run
from PIL import Image
from run_files import write_run

from bpc_cli.errors import UserError
from bpc_cli.report import report
from bpc_cli.reporting.configurations import compare
from bpc_cli.reporting.figures.samples import animation, sample_picture
from bpc_cli.reporting.finding import find_runs
from bpc_cli.reporting.reader import RunRecord, read_run
from bpc_cli.reporting.tables import results_table

HARMS: list[Harm] = [
    *hostile_runs.places(),
    *hostile_runs.names_and_samples(),
    *hostile_contents.configs(),
    *hostile_contents.summaries(),
    *hostile_contents.metrics(),
]
WRITTEN = ("index.html", "results.csv", "trade_off.svg", "trade_off.png")
WRITTEN += ("learning_curves.svg", "learning_curves.png", "samples_000.gif")
each_harm = pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.name)


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """What lies outside of all run directories, and stays as it is."""
    folder = make_outside(tmp_path_factory.mktemp("outside") / "run")
    before = state_of(folder)
    yield folder
    assert state_of(folder) == before


def state_of(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in sorted(folder.rglob("*"))
    }


def check_outcome(runs: list[RunRecord], path: Path, *, is_unreadable: bool) -> None:
    """Check that a hostile run has no words from outside, and is unreadable where it must be."""
    (run,) = (run for run in runs if run.path == path)
    assert (run.status == "unreadable") >= is_unreadable
    if run.status == "unreadable":
        assert run.reason and run.reason.isprintable() and len(run.reason) <= 500
    assert CANARY not in str(run) and str(CANARY_ACCURACY) not in str(run)


def check_report(folder: Path, names: set[str]) -> None:
    """Check a report's page and table: the good run is in both, nothing from outside is."""
    page = (folder / "index.html").read_text()
    with (folder / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {Path(row["run"]).name for row in rows} == names | {"good"}
    good = [row for row in rows if Path(row["run"]).name == "good"]
    assert [(row["status"], row["test_accuracy"]) for row in good] == [
        ("finished", "59.99"),
        ("finished", "60.99"),
    ]
    assert "60.49 ± 0.71" in page
    for text in (page, (folder / "results.csv").read_text()):
        assert CANARY not in text and str(CANARY_ACCURACY) not in text
    for row in rows:
        if row["status"] == "unreadable":
            assert row["reason"]
    assert page.count("<script>") == 1
    assert "could not be drawn" not in page
    assert len(re.sub(r"base64,[A-Za-z0-9+/=]*", "", page)) < 1_200_000  # half of it the library
    with Image.open(folder / "learning_curves.png") as picture:
        picture.verify()


def test_there_are_as_many_harms_as_are_promised():
    assert len(HARMS) >= 120
    assert len({harm.name for harm in HARMS}) == len(HARMS)


@each_harm
def test_a_hostile_run_is_read_harmlessly_or_said_to_be_unreadable(harm, outside, tmp_path):
    good = write_run(tmp_path / "good")
    bad = make_run(tmp_path, harm, outside)
    runs = [read_run(path) for path in find_runs([tmp_path])]
    assert sorted(run.path for run in runs) == sorted([good, bad])
    check_outcome(runs, bad, is_unreadable=harm.is_unreadable)
    comparison = compare(runs)
    assert ("digits", 2) in [(c.data_set, len(c.lines)) for c in comparison.configurations]
    assert results_table(runs).encode()
    for configuration in comparison.configurations:
        animation(configuration)
        picture = sample_picture(configuration)
        if picture is not None:
            with Image.open(io.BytesIO(picture)) as shown:
                assert shown.convert("RGB").getpixel((5, 5)) != (255, 0, 0)
    assert not Path("harmed").exists()


@pytest.mark.slow
def test_one_report_on_all_hostile_runs_is_made_in_bounded_memory(outside, tmp_path, environment):
    write_run(tmp_path / "runs" / "good")
    for number, harm in enumerate(HARMS):
        made = make_run(tmp_path, harm, outside, weight=number + 1.0)
        made.rename(tmp_path / "runs" / f"{number:03d}")
    done = subprocess.run(
        [program_path("bpc-report"), "runs", "--output", "report"],
        cwd=tmp_path,
        env=environment | {"OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2 * 2**30, 2 * 2**30)),
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{len(HARMS) + 1} runs, ")
    check_report(tmp_path / "report", {f"{number:03d}" for number in range(len(HARMS))})


def test_runs_are_found_beside_more_folders_in_folders_than_there_may_be_calls(tmp_path):
    good = write_run(tmp_path / "runs" / "good")
    here = os.open(tmp_path / "runs", os.O_RDONLY)
    for _ in range(sys.getrecursionlimit() + 100):
        os.mkdir("a", dir_fd=here)
        below = os.open("a", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    try:
        assert find_runs([tmp_path]) == [good]
    finally:  # Python's own removal is by calls
        subprocess.run(["rm", "-r", tmp_path / "runs" / "a"], check=True)


@pytest.mark.parametrize("directory", [b"bad\xff\xfe", "two\nlines"])
def test_a_report_inside_a_directory_of_any_name_is_made(directory, command, tmp_path):
    write_run(tmp_path / os.fsdecode(directory))
    done = command("bpc-report", os.fsdecode(directory))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    assert (tmp_path / os.fsdecode(directory) / "report" / "index.html").exists()


@pytest.mark.slow
def test_watching_goes_on_whatever_one_directory_holds(outside, started, tmp_path):
    write_run(tmp_path / "runs" / "good")
    by_name = {harm.name: harm for harm in HARMS}
    names = ("lock: pipe", "sample: pipe", "config: pipe", "config: an alias bomb")
    process = started("bpc-report", "runs", "--watch", "1", "--output", "report")
    assert process.stdout.readline().startswith("1 runs, ")
    for number, name in enumerate(names):
        make_run(tmp_path, by_name[name], outside).rename(tmp_path / "runs" / str(number))
    counts = [process.stdout.readline() for _ in range(2)]
    assert counts[-1].startswith("5 runs, 3 of them not finished")
    process.terminate()


@pytest.mark.parametrize(
    "shift", [0, *(pytest.param(shift, marks=pytest.mark.slow) for shift in range(1, len(WRITTEN)))]
)
def test_what_a_report_writes_replaces_a_link_and_follows_none(shift, outside, tmp_path):
    run = make_run(tmp_path, Harm("none", lambda *_: None), outside)
    (run / "report").mkdir()
    kinds = [*PLACES][shift:] + [*PLACES][:shift]
    for name, kind in zip(WRITTEN, kinds, strict=True):
        PLACES[kind](run / "report" / name, outside / "metrics.jsonl", b"")
    report([run], run / "report")
    assert all((run / "report" / name).is_file() for name in WRITTEN)
    assert not any((run / "report" / name).is_symlink() for name in WRITTEN)


@pytest.mark.parametrize("kind", ["link out", "relative link out", "dangling link out", "pipe"])
def test_a_report_is_not_written_through_a_linked_folder(kind, outside, command, tmp_path):
    run = make_run(tmp_path, Harm("none", lambda *_: None), outside)
    PLACES[kind](run / "report", outside, b"")
    before = sorted(run.rglob("*"))
    done = command("bpc-report", "bad")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "bad/report is " in done.stderr and "by --output" in done.stderr
    with pytest.raises(UserError, match="by --output"):
        report([tmp_path], run / "report")
    assert sorted(run.rglob("*")) == before
    assert not outside.with_name("absent").exists()


def test_a_link_that_stays_in_its_run_directory_is_followed(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "logs").mkdir()
    (run / "metrics.jsonl").rename(run / "logs" / "metrics.jsonl")
    (run / "metrics.jsonl").symlink_to("logs/metrics.jsonl")
    assert read_run(run).is_finished


def test_a_folder_that_the_user_names_may_be_a_link(tmp_path):
    run = write_run(tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "page").symlink_to("elsewhere")
    report([run], tmp_path / "page")
    assert (tmp_path / "elsewhere" / "index.html").exists()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("tensorboard", "link out"),
        ("wandb", "link out"),
        ("wandb_id", "link out"),
        ("mlflow_id", "link out"),
        ("train.log", "pipe"),
        ("metrics.jsonl", "pipe"),
        ("summary.json", "pipe"),
        (".hydra/config.yaml", "pipe"),
        (".lock", "pipe"),
        ("checkpoints/last.ckpt", "pipe"),
        ("samples/iteration_0000010.png", "pipe"),
    ],
)
def test_training_in_a_hostile_directory_is_refused_in_one_line(
    name, kind, outside, command, tmp_path
):
    path = tmp_path / "run" / name
    path.parent.mkdir(parents=True)
    PLACES[kind](path, outside, b"")
    done = command(
        *("bpc-train", "data=digits", "n_train_iters=10", "model.width=16"),
        *("logger=tensorboard", "hydra.run.dir=run"),
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert f"{name} is " in done.stderr and "remove it" in done.stderr
