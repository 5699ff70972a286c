"""A checkpoint's header: JSON in which no number, length or depth is believed."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from bpc_cli.files import JsonObject, parse_finite_json
from bpc_cli.options.check import is_data_name

MAX_HEADER_BYTES = 8 * 2**20  # ten times what a thousand layers need
DTYPES = {
    dtype.__name__: dtype
    for dtype in (np.float32, np.float64, np.int32, np.int64, np.uint8, np.uint32, np.bool)
}
_MOST_ITEMS = 100_000
_MOST_AXES = 8
_LONGEST_TEXT = 1_000
_MOST_SECONDS = 1e12


class SavedArray(NamedTuple):
    """An array as a header describes it."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        """How many bytes of the payload are its own."""
        return math.prod(self.shape) * self.dtype.itemsize


def parse_header(encoded: bytes) -> JsonObject:
    """Parse a header, and check all of it but the config, which `options.check` knows.

    Raises:
        ValueError: saying what bpc does not write so.
    """
    header = parse_finite_json(encoded)
    if not isinstance(header, dict):
        raise ValueError("no object")
    for name, is_right in _REQUIRED.items():
        if name not in header:
            raise ValueError(f"no {name}")
        if not is_right(header[name]):
            raise ValueError(f"wrong {name}")
    for name, is_right in _OPTIONAL.items():
        if name in header and not is_right(header[name]):
            raise ValueError(f"wrong {name}")
    if sum(array.n_bytes for array in saved_arrays(header)) != header["payload_bytes"]:
        raise ValueError("arrays that do not fill its payload")
    return header


def saved_arrays(header: JsonObject) -> list[SavedArray]:
    """List the arrays of a header's payload, little-endian and in its order."""
    return [
        SavedArray(
            array["name"],
            np.dtype(DTYPES[array["dtype"]]).newbyteorder("<"),
            tuple(array["shape"]),
        )
        for array in header["arrays"]
    ]


def describes_its_run(header: JsonObject) -> bool:
    """Tell whether a checkpoint can be resumed: whether it is of a run that had begun."""
    needed = {"metrics_bytes", "seconds", "versions", "data_set"}
    return needed <= header.keys() and header["iteration"] > 0 and _are_texts(header["versions"])


def is_count(value: Any, at_least: int = 0) -> bool:
    """Tell whether a value is a whole number, such as of bytes or iterations."""
    return type(value) is int and value >= at_least


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_TEXT and value.isprintable()


def _is_list_of(is_item: Callable[[Any], bool], most: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and len(value) <= most and all(map(is_item, value))


def _are_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value.values()))


def _are_seconds(value: Any) -> bool:
    return isinstance(value, dict) and all(
        type(number) in (int, float) and abs(number) < _MOST_SECONDS for number in value.values()
    )


def _is_array(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and _is_text(value.get("name"))
        and isinstance(value.get("dtype"), str)
        and value["dtype"] in DTYPES
        and _is_list_of(is_count, _MOST_AXES)(value.get("shape"))
    )


def _is_image_shape(value: Any) -> bool:
    return _is_list_of(lambda length: is_count(length, 1), 3)(value) and len(value) == 3


_REQUIRED: dict[str, Callable[[Any], bool]] = {
    "config": lambda value: isinstance(value, dict),
    "iteration": is_count,
    "arrays": _is_list_of(_is_array, _MOST_ITEMS),
    "payload_bytes": is_count,
    "payload_sha256": _is_text,
}
_OPTIONAL: dict[str, Callable[[Any], bool]] = {
    "metrics_bytes": is_count,
    "metrics_sha256": _is_text,
    "seconds": _are_seconds,
    "data_set": is_data_name,
    "image_shape": _is_image_shape,
    "class_names": _is_list_of(_is_text, _MOST_ITEMS),
}
