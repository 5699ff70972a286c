"""Text from a run directory, which a stranger may have written, as a report can show it."""

import os
from pathlib import Path


def printable(text: str) -> str:
    """Replace what cannot be shown or encoded: control characters, halves of surrogate pairs."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def shortened(text: str, most: int) -> str:
    """Leave out the middle of a text that is longer than `most` letters."""
    if len(text) <= most:
        return text
    tail = most // 3
    return f"{text[: most - tail - 1]}…{text[-tail:]}"


def path_in_words(path: str | Path) -> str:
    """Write a path; bytes that are not UTF-8 become such as \\xff."""
    return printable(os.fsencode(path).decode("utf-8", "backslashreplace"))
