"""What a format is, and the registry. A new one is one file in this folder: a Format, registered.

    from autolora.tasks.causal_lm.formats.format import Format, Keys, Layout, register

    def _read(table: Table, keys: Keys) -> Layout: ...

    register(Format("my_format", _read, fits=lambda table: "my_column" in table.columns, precedence=100, makes=Pair))

A specification can then name it in ``data.format``; with "auto" it is found by its columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from autolora.tasks.causal_lm.examples import Example
from autolora.tasks.data.cells import listed
from autolora.tasks.data.errors import DataError
from autolora.tasks.data.table import Row, Table

AUTO = "auto"
"""In place of a format's name: the one that the table's columns show."""
NAMED_COLUMNS = "prompt_completion"
"""The format of a table whose columns the specification names."""
KEYS = ("prompt", "completion", "template")
"""Keys of ``data`` that say which columns to read; a format names those that it takes."""

UNREAD_SHOWN = 6


class Keys(Protocol):
    """What a specification says of the columns, see :class:`autolora.tasks.causal_lm.spec.DataSpec`."""

    @property
    def format(self) -> str: ...
    @property
    def prompt(self) -> str | None: ...
    @property
    def completion(self) -> str | None: ...
    @property
    def template(self) -> str | None: ...


@dataclass(frozen=True, eq=False)
class Layout:
    """How one table is read.

    Attributes:
        format: a format's name.
        found: the columns and their parts, for the report.
        columns: the columns that ``example`` needs.
        example: ``example(row, where)``; ``where`` names file and row in errors. A row from which nothing can be
            learned is ``Skipped``.
        renewed: whether version 0.1.0 read other text from these columns, so that data it kept is not mixed with this.
    """

    format: str
    found: str
    columns: tuple[str, ...]
    example: Callable[[Row, str], Example]
    renewed: bool = False

    def unread(self, table: Table) -> str:
        """The columns of a table that are not read, of many the first UNREAD_SHOWN; "" if none."""
        names = [column for column in table.columns if column not in self.columns]
        more = len(names) - UNREAD_SHOWN
        return ", ".join(names[:UNREAD_SHOWN]) + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True)
class Format:
    """One way to read rows.

    Attributes:
        name: as in ``data.format``.
        read: the layout of a table, given what the specification says of columns; raises :class:`DataError` if the
            table lacks one.
        fits: whether a table's columns show this format.
        precedence: of several formats that fit a table, the one with the lowest is taken. A new format has the highest,
            so that a table that was read before is read as before, and studies of it continue.
        makes: the kind of example that comes out, ``Skipped`` apart.
        keys: which of KEYS it takes; the others are refused beside it.
    """

    name: str
    read: Callable[[Table, Keys], Layout]
    fits: Callable[[Table], bool]
    precedence: int
    makes: type[Example]
    keys: frozenset[str] = frozenset()


_formats: dict[str, Format] = {}


def register(format: Format) -> Format:
    """Add a format to the registry and return it.

    Raises:
        ValueError: the name is taken, or reserved.
    """
    if format.name in (AUTO, *_formats):
        raise ValueError(f"a format named {format.name!r} is registered already")
    _formats[format.name] = format
    return format


def registry() -> dict[str, Format]:
    """All formats by name, in the order in which they are tried on a table."""
    return dict(sorted(_formats.items(), key=lambda item: (item[1].precedence, item[0])))


def layout_of(table: Table, keys: Keys) -> Layout:
    """The layout that a specification names, or that the table's columns show.

    Raises:
        DataError: a named column or template field is missing, the columns fit no format, or a key is given that the
            format does not take.
    """
    given = [key for key in KEYS if getattr(keys, key) is not None]
    if keys.format != AUTO:
        format = registry()[keys.format]
    elif given:
        format = registry()[NAMED_COLUMNS]
    else:
        format = _detected(table)
    for key in given:
        if key not in format.keys:
            takers = " and ".join(repr(each.name) for each in registry().values() if key in each.keys)
            raise DataError(f"data.format is {format.name!r}, but data.{key} is for {takers} rows: leave one out")
    return format.read(table, keys)


def _detected(table: Table) -> Format:
    for format in registry().values():
        if format.fits(table):
            return format
    raise DataError(
        f"{table.name}: the columns {listed(table.columns)} fit no known format; name two with data.prompt and "
        "data.completion, or give data.template, or data.format"
    )
