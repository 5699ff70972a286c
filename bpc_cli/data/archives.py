"""The original archives of data sets in MNIST's format, as a folder of a user's holds them."""

import os
from pathlib import Path
from typing import NamedTuple

from bpc_cli.data.checksums import content_checksum, file_checksum
from bpc_cli.errors import UserError

SPLITS = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
FILES = tuple(file for files in SPLITS.values() for file in files)
_LARGEST_CONTENT = 16 + 60_000 * 28 * 28  # bytes


class Checksums(NamedTuple):
    """What an archive is known by.

    Attributes:
        published: SHA-256 of the file as it was published, which TFDS registers too.
        content: SHA-256 of what it holds, which other ways to pack it leave alone; None: unknown.
    """

    published: str
    content: str | None


CHECKSUMS = {
    "mnist": {
        "train-images-idx3-ubyte.gz": Checksums(
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        "train-labels-idx1-ubyte.gz": Checksums(
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        "t10k-images-idx3-ubyte.gz": Checksums(
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        "t10k-labels-idx1-ubyte.gz": Checksums(
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    },
    "fashion_mnist": {
        "train-images-idx3-ubyte.gz": Checksums(
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        ),
        "train-labels-idx1-ubyte.gz": Checksums(
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        ),
        "t10k-images-idx3-ubyte.gz": Checksums(
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        ),
        "t10k-labels-idx1-ubyte.gz": Checksums(
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    },
    "kmnist": {
        "train-images-idx3-ubyte.gz": Checksums(
            "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4", None
        ),
        "train-labels-idx1-ubyte.gz": Checksums(
            "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17", None
        ),
        "t10k-images-idx3-ubyte.gz": Checksums(
            "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5", None
        ),
        "t10k-labels-idx1-ubyte.gz": Checksums(
            "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c", None
        ),
    },
}


class GivenArchives(NamedTuple):
    """A folder with a data set's original archives, and the option or variable that names it."""

    folder: Path
    given_by: str


def holds_archives(folder: str | os.PathLike) -> bool:
    """Tell whether a folder has four files of the archives' names."""
    return not _missing(Path(os.path.expanduser(folder)))


def check_archives(name: str, given: GivenArchives) -> None:
    """Check that a folder holds a data set's four archives, as published or packed again.

    Args:
        name: a data set of `CHECKSUMS`.
        given: the folder.

    Raises:
        UserError: naming the archives that are missing, or the first that holds something else.
        OSError: if one cannot be read.
    """
    folder, given_by = given
    if missing := _missing(folder):
        raise UserError(
            f"{given_by}={folder} lacks {', '.join(missing)}: give the folder that holds the "
            f"original archives of {name}, or leave {given_by} out"
        )
    for file in FILES:
        path, known = folder / file, CHECKSUMS[name][file]
        if file_checksum(path) == known.published:
            continue
        if known.content is None:
            raise UserError(
                f"{path} has the wrong checksum for {name}, whose archives are accepted as they "
                "were published alone: fetch the original archive again"
            )
        if content_checksum(path, _LARGEST_CONTENT) != known.content:
            raise UserError(
                f"{path} has the wrong checksum for {name}, and so has what is packed in it: "
                "fetch the original archive again"
            )


def _missing(folder: Path) -> list[str]:
    return [file for file in FILES if not os.path.isfile(folder / file)]
