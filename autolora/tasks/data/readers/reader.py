"""What reads a kind of file, and the registry. A new kind is one file in this folder: a Reader, registered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from autolora.tasks.data.compression import COMPRESSIONS
from autolora.tasks.data.local import LocalFile
from autolora.tasks.data.table import Table


@dataclass(frozen=True)
class Reader:
    """One kind of file.

    Attributes:
        suffix: with its dot, in lower case. It is a part of the identity of what is read, since it decides how the same
            bytes are read.
        read: the rows of a file; raises :class:`autolora.tasks.data.errors.DataError` with file and row.
        also: other suffixes of the same kind.
    """

    suffix: str
    read: Callable[[LocalFile], Table]
    also: tuple[str, ...] = ()


_readers: dict[str, Reader] = {}


def register(reader: Reader) -> Reader:
    """Add a reader to the registry and return it.

    Raises:
        ValueError: one of its suffixes is taken.
    """
    for suffix in (reader.suffix, *reader.also):
        if suffix in _readers or suffix in COMPRESSIONS:
            raise ValueError(f"a reader of {suffix} files is registered already")
    _readers.update(dict.fromkeys((reader.suffix, *reader.also), reader))
    return reader


def reader_of(file: LocalFile) -> Reader | None:
    """What reads a file, by its suffix; None if nothing does."""
    return _readers.get(file.suffix)


def suffixes() -> list[str]:
    """Those of all kinds of files that can be read, each with its dot."""
    return list(_readers)
