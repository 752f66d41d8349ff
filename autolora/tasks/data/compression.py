"""Compressed files, by the suffix that follows the one of their content, as in ``rows.jsonl.gz``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from autolora.tasks.data.errors import DataError

# The libraries are imported when they are needed: a Python may have been built without one.


def _gzip(path: Path) -> BufferedReader:
    import gzip

    return BufferedReader(gzip.open(path))


def _bzip2(path: Path) -> BufferedReader:
    import bz2

    return BufferedReader(bz2.open(path))


def _xz(path: Path) -> BufferedReader:
    import lzma

    return BufferedReader(lzma.open(path))


def _zstandard(path: Path) -> BufferedReader:
    import pyarrow

    return BufferedReader(pyarrow.CompressedInputStream(str(path), "zstd"))


COMPRESSIONS: dict[str, Callable[[Path], BufferedReader]] = {
    ".gz": _gzip,
    ".bz2": _bzip2,
    ".xz": _xz,
    ".zst": _zstandard,
}


@contextmanager
def decompressed(path: Path, name: str, compression: str) -> Iterator[BufferedReader]:
    """The content of a file, to be read once.

    Args:
        path: of the file.
        name: what errors call it.
        compression: a key of COMPRESSIONS, or "" for none.

    Raises:
        DataError: the content is not compressed so, or damaged.
    """
    if not compression:
        with path.open("rb") as file:
            yield file
        return
    import lzma
    import zlib

    try:
        with COMPRESSIONS[compression](path) as file:
            yield file
    except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise DataError(
            f"{name} cannot be decompressed as {compression} ({error or type(error).__name__}): copy it again, or "
            "name it by what it holds"
        ) from None
    except ImportError as error:
        raise DataError(f"{name}: this Python lacks what reads {compression} ({error}); decompress the file") from None
