"""What a stranger may write into a run's config, summary and metrics lines."""

import json
from collections.abc import Iterator
from pathlib import Path

import yaml
from hostile_runs import FILES, MATHTEXT, Harm, write
from run_files import lines_of, summary_of, write_lines

LETTERS = "x" * 200_000
HUGE = "1" + 400 * "0"
HALF_A_PAIR = r'"\ud800"'  # of surrogates
MARKUP = "<script>alert(1)</script>"


def in_config(name: str, text: str, is_unreadable: bool = True) -> Harm:
    """Give an option of a config, or several, as YAML."""

    def do(run: Path, _: Path) -> None:
        config = yaml.safe_load((run / FILES["config"]).read_text())
        config.pop(text.split(":")[0], None)
        write(run / FILES["config"], f"{yaml.safe_dump(config)}{text}\n".encode())

    return Harm(f"config: {name}", do, is_unreadable)


def whole_config(name: str, content: bytes) -> Harm:
    return Harm(f"config: {name}", lambda run, _: write(run / FILES["config"], content))


def in_summary(key: str, name: str, json_text: str, is_unreadable: bool = True) -> Harm:
    """Give one key of a summary as JSON."""

    def do(run: Path, _: Path) -> None:
        summary = summary_of(run) | {"versions": {}, "device": "cpu"}
        *groups, last = key.split(".")
        (summary[groups[0]] if groups else summary)[last] = "@"
        write(run / "summary.json", json.dumps(summary).replace('"@"', json_text).encode())

    return Harm(f"summary: {key} is {name}", do, is_unreadable)


def whole_summary(name: str, content: bytes) -> Harm:
    return Harm(f"summary: {name}", lambda run, _: write(run / "summary.json", content))


def in_metrics(key: str, name: str, json_text: str, is_unreadable: bool = True) -> Harm:
    """Give one key of the last metrics line as JSON."""

    def do(run: Path, _: Path) -> None:
        *lines, last = lines_of(run)
        changed = json.dumps(last | {key: "@"}).replace('"@"', json_text)
        write_lines(run, lines)
        add_to_metrics(run, f"{changed}\n".encode())

    return Harm(f"metrics: {key[:20]!a} is {name}", do, is_unreadable)


def more_metrics(name: str, content: bytes) -> Harm:
    return Harm(f"metrics: {name}", lambda run, _: add_to_metrics(run, content))


def add_to_metrics(run: Path, content: bytes) -> None:
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(content)


def configs() -> Iterator[Harm]:
    """Configs with values that no option has, and what is no config."""
    for name, value in {
        "infinity": ".inf",
        "a list": "[1, 2]",
        "a date": "2020-01-01",
        "a word": "three",
        "true": "true",
        "null": "null",
        "a fraction": "0.5",
        "10**400": HUGE,
        "too large in base 16": "0x" + 5_000 * "f",
        "an object": "!!python/object/apply:os.system [touch harmed]",
    }.items():
        yield in_config(f"seed is {name}", f"seed: {value}")
    for name, value in {
        "bytes": "!!binary aGk=",
        "a set": "!!set {a, b}",
        "a time": "2020-01-01 10:00:00",
        "in base 60 without end": "1" + 30_000 * ":59",
        "an alias of itself": "&a [*a]",
        "a list of 100,000": f"[{'1, ' * 100_000}]",
    }.items():
        yield in_config(f"an option is {name}", f"model: {{width: {value}}}")
    for value in ("-1", "1.7e308", "1e-320", ".nan", "word", "[1]", "null"):
        yield in_config(f"the weight is {value}", f"forward_energy_weight: {value}", False)
    yield in_config("200,000 letters", f"model: {{act_fn: {LETTERS}}}", False)
    yield in_config("mathtext", f"model: {{act_fn: '{MATHTEXT}'}}", False)
    yield in_config("a name of 200,000 letters", f"{LETTERS}: 1")
    yield in_config("a date as a name", "2020-01-01: 1")
    yield in_config("a list as a name", "? [1, 2]\n: 1")
    yield in_config("a number for a group", "data: 3")
    yield in_config("merged", "<<: {seed: 5}")
    for number, is_unreadable in ((2_000, False), (20_000, True)):
        options = "\n".join(f"option_{n}: {n}" for n in range(number))
        yield in_config(f"{number} unknown options", options, is_unreadable)
    bomb = "".join(f"a{n}: &a{n} [{9 * f'*a{n - 1}, '}]\n" for n in range(1, 30))
    for name, content in {
        "a list": b"- a\n- b\n",
        "a word": b"word\n",
        "two documents": b"a: 1\n---\nb: 1\n",
        "deeply nested lists": b"a: " + 100_000 * b"[",
        "deeply nested groups": b"a: " + 50_000 * b"{a: ",
        "a control character": b"a: \x01\n",
        "half a surrogate pair": f"a: {HALF_A_PAIR}\n".encode(),
        "an alias bomb": f"a0: &a0 [x, x]\n{bomb}".encode(),
    }.items():
        yield whole_config(name, content)


def summaries() -> Iterator[Harm]:
    """Summaries with a wrong type for each key, and what is no summary."""
    wrong = {"a number": "3", "a full list": "[1]", "1e999": "1e999", "10**400": HUGE}
    for key in ("status", "reason", "data.name", "device"):
        for name, text in wrong.items():
            yield in_summary(key, name, text)
        yield in_summary(key, "half a surrogate pair", HALF_A_PAIR, False)
        yield in_summary(key, "200,000 letters", json.dumps(LETTERS), False)
        yield in_summary(key, "mathtext", json.dumps(MATHTEXT), False)
        yield in_summary(key, "markup", json.dumps(MARKUP), False)
    for key in ("data", "versions"):
        for name, text in {"a number": "3", "a word": '"word"', "a full list": "[1]"}.items():
            yield in_summary(key, name, text)
    for name, text in {
        **{"a number": "3", "an object": '{"a": 1}', "a list of words": '["word"]'},
        **{"a sign without words": '[{"sign": "energy"}]', "many signs": json.dumps([{}] * 99)},
        "a number for words": '[{"line": 3}]',
    }.items():
        yield in_summary("health", name, text)
    yield in_summary("health", "markup", json.dumps([{"line": MARKUP}]), False)
    versions = {str(number): "1" for number in range(20_000)}
    yield in_summary("versions", "20,000 entries", json.dumps(versions))
    yield in_summary("status", "null", "null")
    for name, content in {
        "a list": b"[]",
        "a number": b"3",
        "half a surrogate pair": HALF_A_PAIR.encode(),
        "deeply nested": 99_999 * b"[",
        "a megabyte of spaces": 2**20 * b" " + b"{}",
    }.items():
        yield whole_summary(name, content)


def metrics() -> Iterator[Harm]:
    """Metrics lines with a wrong type for each key, and what are no metrics lines."""
    wrong = {"a word": '"4"', "a list": "[4]", "true": "true", "NaN": "NaN", "infinity": "Infinity"}
    wrong |= {"10**400": HUGE, "1.7e308": "1.7e308"}
    for key in ("iteration", "seed", "test_accuracy", "gen_loss"):
        for name, text in wrong.items():
            yield in_metrics(key, name, text)
    for key in ("iteration", "seed"):
        for name, text in {"null": "null", "minus one": "-1", "a fraction": "0.5"}.items():
            yield in_metrics(key, name, text)
        yield in_metrics(key, "10**300", "1" + 300 * "0")
    for key in ("test_accuracy", "generation_error", "gen_loss"):
        for text in ("null", "3e38", "-3e38", "5e-324", "-0.0"):
            yield in_metrics(key, text, text, False)
    for key in ("\ud800", LETTERS):
        yield in_metrics(key, "one", "1")
    for name, content in {
        "a line of a list": b"[]\n",
        "a line of a word": b'"word"\n',
        "a line that is deeply nested": 30_000 * b"[" + b"\n",
        "a line of a megabyte": b'{"a": "' + 10**6 * b"x" + b'"}\n',
        "a line of nothing": b"\n",
        "a line without end": 10**6 * b"[",
    }.items():
        yield more_metrics(name, content)
    lines = [json.dumps({"iteration": 4, "seed": n, "test_accuracy": n}) for n in range(20_000)]
    yield more_metrics("20,000 seeds", "\n".join([*lines, ""]).encode())
