"""Run directories as a stranger could make them, to mislead, stop or exhaust whoever reads them.

Here is what may stand in a file's or a folder's place; `hostile_contents` has what they may say.
"""

import dataclasses
import io
import json
import os
import shutil
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image
from run_files import lines_of, summary_of, write_lines, write_run

CANARY = "canary-words"
CANARY_ACCURACY = 77.125
MATHTEXT = r"$\frac{$"
FILES = {
    "metrics": "metrics.jsonl",
    "summary": "summary.json",
    "config": ".hydra/config.yaml",
    "overrides": ".hydra/overrides.yaml",
    "lock": ".lock",
    "sample": "samples/iteration_0000004.png",
}
FOLDERS = ("samples", ".hydra")


@dataclasses.dataclass(frozen=True)
class Harm:
    """A way to make a run directory hostile.

    Attributes:
        name: what is done.
        do: does it, given a run's directory and what lies outside of it.
        is_unreadable: whether a report must call the run unreadable; else it may read it.
        directory: the run directory's name.
    """

    name: str
    do: Callable[[Path, Path], None]
    is_unreadable: bool = True
    directory: str | bytes = "bad"


def make_outside(folder: Path) -> Path:
    """Make a folder of files that look like a run's, and that no report may read or write."""
    write_run(folder, weight=0.25)
    write_lines(folder, [line | {"test_accuracy": CANARY_ACCURACY} for line in lines_of(folder)])
    summary = summary_of(folder) | {"reason": CANARY, "versions": {"jax": CANARY}}
    (folder / "summary.json").write_text(json.dumps(summary))
    config = folder / ".hydra" / "config.yaml"
    config.write_text(config.read_text() + f"optim: {{param: {CANARY}}}\n")
    (folder / ".lock").write_text(CANARY)
    add_samples(folder, "red")
    return folder


def make_run(folder: Path, harm: Harm, outside: Path, weight: float = 0.5) -> Path:
    """Make a run with sample grids, and do a harm to it."""
    path = folder / os.fsdecode(harm.directory)
    write_run(path, weight)
    add_samples(path, "gray")
    harm.do(path, outside)
    return path


def add_samples(run: Path, colour: str) -> None:
    (run / "samples").mkdir()
    for iteration in (2, 4):
        Image.new("RGB", (60, 40), colour).save(run / f"samples/iteration_{iteration:07d}.png")


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def bind_socket(path: Path) -> None:
    """Make a socket; its address may be 107 bytes at most, so it is bound from beside it."""
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(path.name)
    finally:
        os.chdir(here)


def make_sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


# What may stand in a file's or a folder's place, given the path, the same path outside, and what
# was there.
PLACES: dict[str, Callable[[Path, Path, bytes], None]] = {
    "link out": lambda path, outside, _: path.symlink_to(outside),
    "relative link out": lambda path, outside, _: path.symlink_to(
        os.path.relpath(outside, path.parent)
    ),
    "dangling link out": lambda path, outside, _: path.symlink_to(outside.with_name("absent")),
    "link to a device": lambda path, *_: path.symlink_to("/dev/zero"),
    "link to itself": lambda path, *_: path.symlink_to(path.name),
    "pipe": lambda path, *_: os.mkfifo(path),
    "socket": lambda path, *_: bind_socket(path),
}
CONTENTS: dict[str, Callable[[Path, Path, bytes], None]] = {
    "folder": lambda path, *_: path.mkdir(),
    "empty": lambda path, *_: path.write_bytes(b""),
    "truncated": lambda path, _, content: path.write_bytes(content[: len(content) // 2] + b"\n"),
    "not UTF-8": lambda path, _, content: path.write_bytes(b"\xff\xfe\n" + content),
    "zeros": lambda path, *_: path.write_bytes(bytes(100_000)),
    "a terabyte": lambda path, *_: make_sparse(path),
}
# The content of these says nothing, or says it in many ways.
HARMLESS = {
    ("samples", "file"),
    *(("lock", content) for content in CONTENTS if content != "folder"),
    *(("sample", place) for place in (*PLACES, *CONTENTS)),
    ("metrics", "empty"),
    ("config", "truncated"),
}


def put(name: str, kind: str, make: Callable[[Path, Path, bytes], None]) -> Harm:
    """Put something in the place of a file or a folder of a run."""
    relative = FILES.get(name, name)

    def do(run: Path, outside: Path) -> None:
        if name == "lock":  # which is read where there is no summary
            (run / "summary.json").unlink()
        path = run / relative
        content = path.read_bytes() if path.is_file() else b""
        remove(path)
        make(path, outside / relative, content)

    return Harm(f"{name}: {kind}", do, (name, kind) not in HARMLESS)


def write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def sample(name: str, content: bytes) -> Harm:
    """Put a file among the samples."""
    return Harm(f"sample: {name}", lambda run, _: write(run / FILES["sample"], content), False)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png_bomb(side: int) -> bytes:
    """A small PNG that is square and large once it is decoded."""
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(min((side + 1) * side, 10**8)), 9)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", rows)


def other_picture(format: str) -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", (60, 40), "red").save(encoded, format)
    return encoded.getvalue()


def places() -> Iterator[Harm]:
    for name in FILES:
        for kind, make in (PLACES | CONTENTS).items():
            yield put(name, kind, make)
    for name in FOLDERS:
        for kind, make in PLACES.items():
            yield put(name, kind, make)
        yield put(name, "file", lambda path, *_: path.write_bytes(b"word"))


def names_and_samples() -> Iterator[Harm]:
    names = {"not UTF-8": b"bad\xff\xfe", "mathtext": MATHTEXT, "two lines": "bad\nbad"}
    names |= {"markup": "<script>alert(1)", "255 letters": 255 * "x", "an option": "--help"}
    for name, directory in names.items():
        yield Harm(f"directory: {name}", lambda *_: None, False, directory)
        yield Harm(
            f"directory: {name}, unreadable",
            lambda run, _: write(run / FILES["config"], b"word"),
            True,
            directory,
        )
    yield sample("a bomb", png_bomb(9_000))
    yield sample("a larger bomb", png_bomb(60_000))
    yield sample("a PNG of nothing", b"\x89PNG\r\n\x1a\n")
    yield sample("PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    for format in ("GIF", "TIFF", "BMP"):
        yield sample(format, other_picture(format))
