"""Reports: figures counted rightly, one page that needs nothing else, and wary of strangers."""

import csv
import json
import re
import shutil
import statistics
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from conftest import environment_in
from PIL import Image
from run_files import lines_of

import bpc_cli.reporting
from bpc_cli.reporting.configurations import compare
from bpc_cli.reporting.finding import find_runs
from bpc_cli.reporting.reader import read_run

WEB = Path(bpc_cli.reporting.__path__[0])
SMALL = ("data=digits", "model.width=32", "n_train_iters=20", "test_every=10")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


@pytest.fixture(scope="session")
def sweep(made_once, bpc_train) -> Path:
    """Two weights by three seeds, with every sample grid; and two jobs that fail."""

    def make(directory: Path) -> None:
        code, _, err, _ = bpc_train(
            *("-m", *SMALL, "forward_energy_weight=0.1,1e-3", "n_seeds=3"),
            *("optim.param_lr=1e-3,1e30", "save_samples=true", f"hydra.sweep.dir={directory}"),
        )
        assert (code, "2 of 4 jobs failed" in err) == (1, True), err

    return made_once("report", make)


@pytest.fixture(scope="session")
def report(sweep, server, made_once) -> Path:
    """The report on that sweep."""

    def make(folder: Path) -> None:
        environment = environment_in(folder)
        words = ("bpc-report", str(sweep), "--output", folder.name)
        done = server.run(words, folder.parent, environment)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"4 runs, 2 of them not finished: {folder.name}/index.html\n"

    return made_once("page", make)


@pytest.fixture
def copied(sweep, tmp_path) -> Path:
    return Path(shutil.copytree(sweep, tmp_path / "sweep"))


class Page(HTMLParser):
    """Collects a page's text, tables and addresses."""

    def __init__(self, text: str):
        super().__init__()
        self.sources, self.links, self.alts = [], [], []
        self.rows, self.words, self.tags, self.is_in_cell = [], [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, found in (("src", self.sources), ("href", self.links), ("alt", self.alts)):
            found += [value for key, value in attrs if key == name]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
            self.is_in_cell = True

    def handle_endtag(self, tag):
        self.is_in_cell &= tag not in ("td", "th")

    def handle_data(self, data):
        self.words.append(data)
        if self.is_in_cell:
            self.rows[-1][-1] += data


def last_lines(run: Path) -> list[dict]:
    return [line for line in lines_of(run) if line["iteration"] == 20]


def test_a_report_counts_what_the_runs_measured(sweep, report):
    page = Page((report / "index.html").read_text())
    table = [row for row in page.rows if row[:1] == ["digits"]]
    finished = [run for run in (sweep / "0", sweep / "2")]
    assert len(table) == 2
    for row, run in zip(table, finished, strict=True):
        lines = last_lines(run)
        config = (run / ".hydra" / "config.yaml").read_text()
        assert f"forward_energy_weight: {row[1]}\n" in config
        assert row[2] == "3"
        accuracies = [line["test_accuracy"] for line in lines]
        errors = [line["generation_error"] for line in lines]
        mean, std = statistics.fmean(accuracies), statistics.stdev(accuracies)
        assert f"{mean:.2f} ± {std:.2f}" in row[3]
        assert f"{statistics.fmean(errors):.4f} ± {statistics.stdev(errors):.4f}" in row[4]
    best = max(finished, key=lambda run: sum(line["test_accuracy"] for line in last_lines(run)))
    assert [row[3].startswith("★") for row in table] == [run == best for run in finished]
    text = " ".join(page.words)
    assert text.count("training diverged: at iteration") == 2
    assert "optim.param_lr=1e+30" in text


def test_results_have_a_row_for_each_run_and_seed(report):
    with (report / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    finished = [row for row in rows if row["status"] == "finished"]
    assert [(Path(row["run"]).name, row["seed"]) for row in finished] == [
        (run, seed) for run in "02" for seed in "012"
    ]
    for row in finished:
        (line,) = [
            line for line in last_lines(Path(row["run"])) if line["seed"] == int(row["seed"])
        ]
        assert float(row["test_accuracy"]) == line["test_accuracy"]
        assert float(row["generation_error"]) == line["generation_error"]
        assert row["data_set"] == "digits"
        assert row["model.width"] == "32"
    failed = [row for row in rows if row["status"] == "diverged"]
    assert all("no longer finite" in row["reason"] for row in failed)
    assert {row["forward_energy_weight"] for row in failed} == {"0.1", "0.001"}


def test_the_page_needs_nothing_else_and_the_figures_lie_beside_it(report):
    text = (report / "index.html").read_text()
    page = Page(text)
    assert "link" not in page.tags and "iframe" not in page.tags
    assert page.sources
    assert all(source.startswith("data:image/") for source in page.sources)
    assert all((report / unquote(link)).exists() for link in page.links)
    own = text.replace((WEB / "vendor" / "echarts.min.js").read_text(), "")
    assert len(own) < len(text) - 500_000  # the library is in it
    assert not re.search(r"https?://", re.sub(r"base64,[A-Za-z0-9+/=]*", "", own))
    for name in ("trade_off", "learning_curves"):
        with Image.open(report / f"{name}.png") as picture:
            picture.verify()
        assert (report / f"{name}.svg").read_text().startswith("<?xml")
        assert (report / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    animations = sorted(report.glob("*.gif"))
    assert len(animations) == 2
    for animation in animations:
        assert animation.stat().st_size <= 2_000_000
        with Image.open(animation) as picture:
            assert picture.n_frames == 2


def test_one_run_makes_a_report_inside_it_by_default(copied, command):
    done = command("bpc-report", "sweep/0")
    assert (done.returncode, done.stderr) == (0, "")
    assert (copied / "0" / "report" / "index.html").exists()
    again = command("bpc-report", "sweep")  # finds no runs in the report
    assert again.stdout.startswith("4 runs, ")


def test_data_sets_are_shown_apart_and_never_averaged(copied, command, tmp_path):
    other = Path(shutil.copytree(copied / "0", tmp_path / "other" / "0"))
    summary = json.loads((other / "summary.json").read_text())
    summary["data"]["name"] = "mnist"
    (other / "summary.json").write_text(json.dumps(summary))
    comparison = compare([read_run(path) for path in find_runs([copied, tmp_path / "other"])])
    assert sorted((s.data_set, len(s.lines)) for s in comparison.configurations) == [
        ("digits", 3),
        ("digits", 3),
        ("mnist", 3),
    ]
    done = command("bpc-report", "sweep", "other", "--output", "report")
    assert (done.returncode, done.stderr) == (0, "")
    text = (tmp_path / "report" / "index.html").read_text()
    assert "These runs are on different data sets (digits, mnist)" in text


def test_a_run_that_is_given_twice_counts_once(copied, tmp_path):
    shutil.copytree(copied / "0", tmp_path / "again" / "0")
    twice = [copied, copied / "0", tmp_path / "again"]
    comparison = compare([read_run(path) for path in find_runs(twice)])
    assert [len(setting.lines) for setting in comparison.configurations] == [3, 3]
    assert [run.path for run in comparison.repeated] == [copied / "0"]


def test_seeds_of_several_runs_are_one_setting(bpc_train, tmp_path):
    for seed in (0, 1):
        bpc_train(*SMALL, f"seed={seed}", f"hydra.run.dir={tmp_path / 'runs' / str(seed)}")
    (setting,) = compare([read_run(path) for path in find_runs([tmp_path])]).configurations
    assert [line["seed"] for line in setting.lines] == [0, 1]
    assert setting.spreads["test_accuracy"].n == 2


def test_what_a_run_says_is_text_and_never_markup(copied, command, tmp_path):
    summary = json.loads((copied / "1" / "summary.json").read_text())
    summary["reason"] = "<script>alert(1)</script>"
    summary["versions"]["jax"] = "<img src=x onerror=alert(1)>"
    (copied / "1" / "summary.json").write_text(json.dumps(summary))
    config = copied / "0" / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("act_fn: relu", "act_fn: '<b>x</b>'"))
    assert command("bpc-report", "sweep", "--output", "report").returncode == 0
    page = Page((tmp_path / "report" / "index.html").read_text())
    assert page.tags.count("script") == 2  # what charts are drawn from, and what draws them
    assert "b" not in page.tags
    assert all(source.startswith("data:image/") for source in page.sources)
    assert "<script>alert(1)</script>" in "".join(page.words)


def do_harm(harm: str, run: Path, secret: Path) -> None:
    metrics, config = run / "metrics.jsonl", run / ".hydra" / "config.yaml"
    if harm == "link out":
        metrics.unlink()
        metrics.symlink_to(secret)
    elif harm == "not JSON":
        metrics.write_text("{\n")
    elif harm == "not a config":
        config.write_text("- a\n- b\n")
    elif harm == "objects in YAML":
        config.write_text("!!python/object/apply:os.system ['touch harmed']\n")
    else:
        metrics.write_text('{"iteration": 20, "seed": 0, "test_accuracy": "99"}\n')


def test_strangers_runs_are_told_not_believed(copied, command, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret words\n")
    harms = ["link out", "not JSON", "not a config", "objects in YAML", "words for numbers"]
    for harm in harms:
        run = Path(shutil.copytree(copied / "0", copied / harm))
        do_harm(harm, run, secret)
    done = command("bpc-report", "sweep", "--output", "report")
    assert (done.returncode, done.stderr) == (0, "")
    text = (tmp_path / "report" / "index.html").read_text()
    told = [row[0] for row in Page(text).rows if row[1:2] == ["unreadable"]]
    assert sorted(told) == sorted(f"sweep/{harm}" for harm in harms)
    assert "secret words" not in text
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "bpc-report: there is no directory nowhere"),
        ((".",), "bpc-report: there are no runs in .: give run or sweep directories"),
        ((), "bpc-report: the following arguments are required: DIR; --help explains"),
        ((".", "--watch", "0"), "must be between 1 and 86400 seconds"),
        ((".", "--wach"), "unrecognized arguments: --wach"),
    ],
)
def test_wrong_input_is_one_line(arguments, message, command, tmp_path):
    done = command("bpc-report", *arguments)
    assert done.returncode != 0
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_watching_follows_a_sweep(copied, started, tmp_path):
    (copied / "2").rename(tmp_path / "later")
    process = started("bpc-report", "sweep", "--watch", "1", "--output", "report")
    assert process.stdout.readline().startswith("3 runs, 2 of them")
    (tmp_path / "later").rename(copied / "2")
    counts = [process.stdout.readline() for _ in range(2)]
    assert counts[-1].startswith("4 runs, 2 of them")
    assert 'http-equiv="refresh" content="1"' in (tmp_path / "report/index.html").read_text()
    process.terminate()


def chromium(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it_at_any_width(width, report, tmp_path):
    page = report / "index.html"
    measure = """
    <script>addEventListener("load", () => {
      const images = [...document.images];
      document.querySelectorAll("th button")[3].click();
      const rows = [...document.querySelector("thead + tbody").rows];
      const order = rows.map(row => row.cells[3].innerText);
      document.title = JSON.stringify({
        wide: document.documentElement.scrollWidth, images: images.length,
        broken: images.filter(image => !image.naturalWidth).length,
        order: order.map(text => parseFloat(text.replace("★ ", "")))});
    });</script></body>"""
    measured = tmp_path / "measured.html"
    any_script = re.sub(r"<meta http-equiv=\"Content-Security[^>]*>", "", page.read_text())
    measured.write_text(any_script.replace("</body>", measure))
    dumped = chromium("--dump-dom", f"--window-size={width},900", f"file://{measured}").stdout
    found = json.loads(re.search(r"<title>(.*?)</title>", dumped)[1].replace("&quot;", '"'))
    assert found["images"] >= 6
    assert found["broken"] == 0
    assert found["wide"] <= max(width, 500)  # the narrowest window that Chromium makes
    assert found["order"] == sorted(found["order"])
    shot = tmp_path / "shot.png"
    chromium(f"--screenshot={shot}", f"--window-size={width},2000", f"file://{page}")
    with Image.open(shot) as picture:
        darkest, lightest = picture.convert("L").getextrema()
        assert darkest < 64 and lightest == 255
