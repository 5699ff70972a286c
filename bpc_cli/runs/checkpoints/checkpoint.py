"""State ↔ file: checkpoints that are checked on reading and atomic on writing.

A file is one line `bpc-checkpoint VERSION SHA256 LENGTH` on the header that follows, the header
(JSON: config, iteration, the payload's length and SHA-256, each array's name, type and shape), and
the payload: the arrays' bytes, little-endian, in the header's order. Reading executes nothing and
allocates nothing that the file's own bytes on disk do not back.
"""

import contextlib
import hashlib
import json
import os
import re
import secrets
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from bpc_cli.errors import UserError, one_line
from bpc_cli.files import JsonObject, check_inside, sync_directory, write_atomically
from bpc_cli.runs.checkpoints.header import DTYPES, MAX_HEADER_BYTES, parse_header, saved_arrays

_MAGIC = b"bpc-checkpoint"
_VERSION = 2
_READABLE = (1, 2)
_FIRST_LINE_BYTES = 256
_HARMLESS_BYTES = 64 * 2**20

State = TypeVar("State", bound=PyTree)


class Checkpoint(NamedTuple):
    """A checkpoint's header and, still as bytes, its arrays.

    Attributes:
        path: the file that it was read from.
        version: its format.
        header: what was saved beside the arrays: `config`, `iteration`, `data_set`, ...
        payload: the arrays' bytes.
    """

    path: Path
    version: int
    header: JsonObject
    payload: bytes


def save_checkpoint(path: Path, state: PyTree, header: JsonObject) -> None:
    """Write a state to a file so that, whatever happens, the path holds a whole checkpoint.

    The bytes go to a temporary name, are synced, and replace the path at once.

    Args:
        path: the file to write or replace.
        state: any pytree; its arrays are saved, the rest is rebuilt from the config on reading.
        header: what to save beside the arrays; anything JSON can hold.

    Raises:
        OSError: if the file cannot be written; the path is then as it was.
        ValueError: if the header is longer than any that can be read.
    """
    arrays = [(name, _to_little_endian(leaf)) for name, leaf in _named_arrays(state)]
    payload = b"".join(array.tobytes() for _, array in arrays)
    header = header | {
        "arrays": [
            {"name": name, "dtype": array.dtype.name, "shape": list(array.shape)}
            for name, array in arrays
        ],
        "payload_bytes": len(payload),
        "payload_sha256": hashlib.sha256(payload).hexdigest(),
    }
    encoded = json.dumps(header, allow_nan=False).encode() + b"\n"
    if len(encoded) > MAX_HEADER_BYTES:
        raise ValueError(f"a header of {len(encoded)} bytes is longer than {MAX_HEADER_BYTES}")
    digest = hashlib.sha256(encoded).hexdigest().encode()
    first_line = b"%s %d %s %d\n" % (_MAGIC, _VERSION, digest, len(encoded))
    write_atomically(path, first_line + encoded + payload)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint and check all of its bytes.

    Raises:
        UserError: if the file is missing, is no checkpoint, is of a newer format, or is damaged.
    """
    if not path.is_file():  # a pipe or a device would never end
        raise UserError(f"there is no checkpoint at {path}")
    try:
        with path.open("rb") as file:
            return _read(file, path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({one_line(error)})") from error
    except MemoryError as error:
        raise UserError(f"{path} is larger than the memory that there is") from error


def _read(file: BinaryIO, path: Path) -> Checkpoint:
    first_line, newline, _ = file.read(_FIRST_LINE_BYTES).partition(b"\n")
    words = first_line.split(b" ")
    if words[0] != _MAGIC:
        raise UserError(f"{path} is not a bpc checkpoint, or its first bytes are damaged")
    damaged = UserError(f"{path} is damaged (its checksum does not match): use another checkpoint")
    if not newline or len(words) != 4 or not (words[1].isdigit() and words[3].isdigit()):
        raise damaged
    version, header_bytes = int(words[1]), int(words[3])
    if version not in _READABLE:
        raise UserError(
            f"{path} has checkpoint format {version}, this version of bpc reads up to {_VERSION}"
        )
    if header_bytes > MAX_HEADER_BYTES:
        raise damaged
    file.seek(len(first_line) + 1)
    encoded = file.read(header_bytes)
    if hashlib.sha256(encoded).hexdigest().encode() != words[2]:
        raise damaged
    try:
        header = parse_header(encoded)
    except ValueError as error:
        raise UserError(
            f"{path} has a header that bpc does not write ({one_line(error)}): use another "
            "checkpoint"
        ) from error
    status = os.fstat(file.fileno())
    if file.tell() + header["payload_bytes"] != status.st_size:
        raise damaged
    if _is_mostly_holes(status):
        raise UserError(f"{path} is damaged (most of it is not on disk): use another checkpoint")
    payload = file.read(header["payload_bytes"])
    if header["payload_sha256"] != hashlib.sha256(payload).hexdigest():
        raise damaged
    return Checkpoint(path, version, header, payload)


def _is_mostly_holes(status: os.stat_result) -> bool:
    """Tell whether a large file's size is a claim: whether disk blocks back an eighth of it.

    Weights are noise, which no file system compresses so far. Some file systems count no blocks.
    """
    on_disk = status.st_blocks * 512
    return status.st_size > _HARMLESS_BYTES and 0 < on_disk < status.st_size // 8


def restore(checkpoint: Checkpoint, like: State) -> State:
    """Fill a state's arrays from those of the same names in a checkpoint.

    Args:
        checkpoint: what `read_checkpoint` returned.
        like: a state, or part of one (None where a part is not wanted); its arrays may be
            `jax.ShapeDtypeStruct`s.

    Raises:
        UserError: if an array is missing, or is not of the state's type and shape.
    """
    saved = _arrays_of(checkpoint)
    filled = []
    for name, leaf in _named_arrays(like):
        array = saved.get(name if checkpoint.version > 1 else _name_in_format_1(name))
        if array is None or array.shape != leaf.shape or array.dtype != leaf.dtype:
            raise UserError(
                f"{checkpoint.path} holds a model of another shape than its config says ({name})"
            )
        filled.append(jnp.asarray(array))
    arrays, static = eqx.partition(like, _is_array)
    return eqx.combine(jax.tree.unflatten(jax.tree.structure(arrays), filled), static)


def copy_checkpoint(source: Path, target: Path) -> None:
    """Make `target` the checkpoint that `source` is now; a later save to `source` leaves it alone.

    Raises:
        OSError: if it cannot be written; the target is then as it was.
    """
    if target.exists() and source.samefile(target):
        return  # and renaming one name of a file to another does nothing
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        # Saving replaces a file and never writes into one, so both names can share the bytes.
        os.link(source, temporary)
    except OSError:
        write_atomically(target, source.read_bytes())
        return
    try:
        temporary.replace(target)
    except OSError as error:
        temporary.unlink()
        error.filename = str(target)
        raise
    sync_directory(target.parent)


def open_checkpoint(path: Path, which: str = "last") -> tuple[Checkpoint, str | None]:
    """Read a checkpoint file, or the one that a run directory has under a name.

    Where `last` cannot be read, the newest one that can stands in for it.

    Returns:
        The checkpoint, and a line of warning if it is not the one that was asked for.

    Raises:
        UserError: if there is none, or none that is whole.
    """
    if not path.is_dir():
        return read_checkpoint(path), None
    wanted = path / "checkpoints" / f"{which}.ckpt"
    try:
        return _read_inside(path, wanted), None
    except UserError:
        if which != "last":
            raise
        newest = None
        for candidate in sorted(wanted.parent.glob("*.ckpt")):
            with contextlib.suppress(UserError):
                checkpoint = _read_inside(path, candidate)
                if newest is None or checkpoint.header["iteration"] > newest.header["iteration"]:
                    newest = checkpoint
        if newest is None:
            raise
        return newest, (
            f"{wanted} is missing or damaged: this is {newest.path.name}, of iteration "
            f"{newest.header['iteration']}"
        )


def _read_inside(directory: Path, path: Path) -> Checkpoint:
    try:
        check_inside(directory, path)
    except OSError as error:
        raise UserError(f"{one_line(error)}: copy the checkpoint there") from error
    return read_checkpoint(path)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | jax.ShapeDtypeStruct)


def _named_arrays(state: PyTree) -> list[tuple[str, Any]]:
    leaves = jax.tree.leaves_with_path(eqx.filter(state, _is_array))
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in leaves]


def _name_in_format_1(name: str) -> str:
    """Name an array as format 1 did: each direction was a network with `layers`, without skips."""
    name = name.removeprefix(".model")
    return re.sub(r"(\[\d+\])(?:\.layer)?\.(weight|bias)$", r".layers\1.\2", name)


def _arrays_of(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """View a checkpoint's payload as arrays."""
    arrays, offset = {}, 0
    try:
        for saved in saved_arrays(checkpoint.header):
            view = np.ndarray(saved.shape, saved.dtype, checkpoint.payload, offset)
            arrays[saved.name] = view.astype(saved.dtype.newbyteorder("="))
            offset += saved.n_bytes
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{checkpoint.path} is damaged: its arrays do not fill its payload"
        ) from error
    return arrays


def _to_little_endian(leaf: Any) -> np.ndarray:
    array = np.asarray(leaf)
    if array.dtype.name not in DTYPES:
        raise TypeError(f"checkpoints hold no arrays of type {array.dtype}")
    return array.astype(array.dtype.newbyteorder("<"))
