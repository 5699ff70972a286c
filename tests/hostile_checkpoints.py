"""Checkpoints that a stranger could make: all of `CASES` are made from a good one."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bpc_cli.options.declare import option_paths
from bpc_cli.options.schema import TrainConfig

Make = Callable[[Path, dict, bytes], None]  # writes a file, given a good header and payload

# Raw JSON, as much of it is nothing that Python would write.
VALUES = {
    "null": "null",
    "true": "true",
    "negative": "-5",
    "huge": "1" + "0" * 400,
    "endless": "9" * 5000,
    "nan": "NaN",
    "infinite": "1e999",
    "text": '"\\ud800\\n"',
    "list": "[]",
    "object": "{}",
    "nested": "[" * 900 + "]" * 900,
    "deep": '{"a":' * 20_000 + "1" + "}" * 20_000,
    "long": json.dumps("a" * 10**6),
    "many": json.dumps([1.0] * 100_000),
}
HEADER = (
    *("config", "iteration", "arrays", "payload_bytes", "payload_sha256", "metrics_bytes"),
    *("metrics_sha256", "seconds", "versions", "data_set", "image_shape", "class_names"),
)
OTHERS = ("null", "true", "endless", "infinite", "list", "deep")
SOME = ("huge", "nan", "negative", "text", "object", "nested", "many", "long")
CHANGES: dict[str, Any] = {
    "config.optim.param_args.a": VALUES["nested"],
    "config.optim.activity_args": json.dumps({f"a{i}": i for i in range(100_000)}),
    "config.model.depth": "1000",
    "config.model.width": str(2**62),
    "config.n_seeds": str(2**31),
    "config.seed": str(2**32),
    "config.inference.n_steps": str(2**62),
    "config.model.act_fn": '"os.system"',
    "config.data.name": '"../../etc"',
    "config.data.mean": '"${oc.env:HOME}"',
    "config.unknown": "1",
    "seconds.total": "1e308",
    "seconds.train": '"a"',
    "versions.jax": VALUES["many"],
    "versions.device": '"\\ud800"',
    "data_set": '"a\\u0000b"',
    "iteration": "5",
    "image_shape": f"[{2**62}, {2**62}, 3]",
    "class_names": json.dumps(["a"] * 90_000),
    "metrics_bytes": str(2**62),
}
ARRAYS: dict[str, Any] = {
    "shape": [2**40, 2**20],
    "shape 0": [0, 2**62],
    "shape -1": [-1, 8],
    "shape of 99 axes": [1] * 99,
    "shape of floats": [8.0, 10.0],
    "shape of another": [8, 3],
    "dtype": "object",
    "dtype list": [],
    "name": 7,
    "name twice": None,
}


def with_header(path: Path, header: str, payload: bytes, version: int = 2) -> None:
    """Write a checkpoint whose checksums are right, whatever its header says."""
    encoded = header.encode() + b"\n"
    digest = hashlib.sha256(encoded).hexdigest()
    path.write_bytes(b"bpc-checkpoint %d %s %d\n" % (version, digest.encode(), len(encoded)))
    with path.open("ab") as file:
        file.write(encoded)
        file.write(payload)


def changed(where: str, raw: str | None) -> Make:
    """Change one value of the header to raw JSON, or take it away."""

    def make(path: Path, header: dict, payload: bytes) -> None:
        *groups, name = where.split(".")
        holder = header
        for group in groups:
            holder = holder.setdefault(group, {})
        holder.pop(name, None)
        if raw is not None:
            holder[name] = "@raw@"
        with_header(path, json.dumps(header).replace('"@raw@"', raw or ""), payload)

    return make


def array_changed(what: str, value: Any) -> Make:
    """Change what the header says of its first array."""

    def make(path: Path, header: dict, payload: bytes) -> None:
        if value is None:
            header["arrays"][1]["name"] = header["arrays"][0]["name"]
        else:
            header["arrays"][0][what.split()[0]] = value
        with_header(path, json.dumps(header), payload)

    return make


def truncated(fraction: float) -> Make:
    def make(path: Path, header: dict, payload: bytes) -> None:
        with_header(path, json.dumps(header), payload)
        os.truncate(path, int(path.stat().st_size * fraction))

    return make


def flipped(fraction: float) -> Make:
    """Flip a bit of the payload, and correct its checksum."""

    def make(path: Path, header: dict, payload: bytes) -> None:
        damaged = bytearray(payload)
        damaged[int(len(payload) * fraction)] ^= 64
        header["payload_sha256"] = hashlib.sha256(damaged).hexdigest()
        with_header(path, json.dumps(header), bytes(damaged))

    return make


def filled(number: bytes) -> Make:
    """Fill all arrays with a float32 number."""

    def make(path: Path, header: dict, payload: bytes) -> None:
        other = number * (len(payload) // 4)
        header["payload_sha256"] = hashlib.sha256(other).hexdigest()
        with_header(path, json.dumps(header), other)

    return make


def sparse(n_bytes: int, *, consistent: bool) -> Make:
    """Make a file of a size that no disk blocks back, whose header may say the same."""

    def make(path: Path, header: dict, payload: bytes) -> None:
        if consistent:
            header["arrays"] = [{"name": "x", "dtype": "uint8", "shape": [n_bytes]}]
            header["payload_bytes"] = n_bytes
            payload = b""
        with_header(path, json.dumps(header), payload)
        os.truncate(path, path.stat().st_size + n_bytes)

    return make


def content(data: bytes) -> Make:
    return lambda path, header, payload: path.write_bytes(data) and None


def link_to(target: str) -> Make:
    return lambda path, header, payload: path.symlink_to(target)


def many_arrays(path: Path, header: dict, payload: bytes) -> None:
    header["arrays"] += [{"name": "x", "dtype": "uint8", "shape": [0]}] * 90_000
    with_header(path, json.dumps(header), payload)


def deep_model(path: Path, header: dict, payload: bytes) -> None:
    """Say that there are a thousand layers, with as many arrays."""
    header["config"]["model"]["depth"] = 1000
    header["arrays"] += [{"name": "x", "dtype": "uint8", "shape": [0]}] * 4_000
    with_header(path, json.dumps(header), payload)


def padded_header(path: Path, header: dict, payload: bytes) -> None:
    with_header(path, json.dumps(header) + " " * 50_000_000, payload)


def wide_header(path: Path, header: dict, payload: bytes) -> None:
    header["more"] = "@raw@"
    raw = "[" + "{}," * 2_000_000 + "{}]"
    with_header(path, json.dumps(header).replace('"@raw@"', raw), payload)


def of_format(version: int) -> Make:
    return lambda path, header, payload: with_header(path, json.dumps(header), payload, version)


CASES: dict[str, Make] = {
    **{f"{key}: {name}": changed(key, VALUES[name]) for key in HEADER for name in SOME},
    **{f"{key}: {name}": changed(key, VALUES[name]) for key in HEADER[1::3] for name in OTHERS},
    **{f"{key}: missing": changed(key, None) for key in HEADER},
    **{
        f"config.{path}: {SOME[i % len(SOME)]}": changed(
            f"config.{path}", VALUES[SOME[i % len(SOME)]]
        )
        for i, path in enumerate(option_paths(TrainConfig))
    },
    "config.model.width: huge": changed("config.model.width", VALUES["huge"]),
    "config.inference.forward_layer_weights: many": changed(
        "config.inference.forward_layer_weights", VALUES["many"]
    ),
    **{f"{key} changed": changed(key, raw) for key, raw in CHANGES.items()},
    **{f"array {what}": array_changed(what, value) for what, value in ARRAYS.items()},
    **{f"truncated at {part}": truncated(part) for part in (0.001, 0.01, 0.1, 0.5, 0.99)},
    **{f"flipped at {part}": flipped(part) for part in (0.0, 0.3, 0.6, 0.9)},
    "weights of NaN": filled(b"\0\0\xc0\x7f"),
    "weights of infinity": filled(b"\0\0\x80\x7f"),
    "weights of 1e38": filled(b"\x99\x76\x96\x7e"),
    "more bytes": lambda path, header, payload: with_header(
        path, json.dumps(header), payload + b"\0"
    ),
    "no bytes": lambda path, header, payload: with_header(path, json.dumps(header), b""),
    "sparse": sparse(10**12, consistent=False),
    "sparse and consistent": sparse(10**12, consistent=True),
    "sparse of 8 GB": sparse(8 * 10**9, consistent=True),
    "many arrays": many_arrays,
    "deep model": deep_model,
    "padded header": padded_header,
    "wide header": wide_header,
    "format 0": of_format(0),
    "format 1": of_format(1),
    "format 99999": of_format(99999),
    "empty": content(b""),
    "no newline": content(b"bpc-checkpoint 2 " + b"0" * 10_000_000),
    "long header claimed": content(b"bpc-checkpoint 2 00 " + b"9" * 200 + b"\n{}"),
    "no JSON": lambda path, header, payload: with_header(path, "{", payload),
    "JSON list": lambda path, header, payload: with_header(path, "[]", payload),
    "not UTF-8": content(b"bpc-checkpoint 2 \xff\xff \xff\n"),
    "FIFO": lambda path, header, payload: os.mkfifo(path),
    "directory": lambda path, header, payload: path.mkdir(),
    "link to itself": link_to("last.ckpt"),
    "broken link": link_to("nowhere"),
    "link to a device": link_to("/dev/zero"),
    "link out": link_to("../../elsewhere"),
}
