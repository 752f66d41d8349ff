"""Checked access to the cells of a row. Errors name file, row and column."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from autolora.tasks.data.errors import DataError, show
from autolora.tasks.data.table import Row, Table


def require(table: Table, columns: Sequence[str], advice: str) -> None:
    """Raise :class:`DataError` with the advice if the table lacks one of the columns."""
    for column in columns:
        if column not in table.columns:
            raise DataError(f"{table.name} has no column {column!r}; {its_columns(table)}; {advice}")


def its_columns(table: Table) -> str:
    """The table's columns, for an error message."""
    return f"its columns are {listed(table.columns)}"


def listed(columns: Sequence[str]) -> str:
    """Quoted and separated by commas."""
    return ", ".join(map(repr, columns))


def present(row: Row, column: str, where: str) -> object:
    """A cell that must hold something.

    Args:
        row: of a table that has the column.
        column: its name.
        where: file and row, for the error.

    Raises:
        DataError: the row lacks the column, or the cell is None.
    """
    if column not in row:
        raise DataError(f"{where} has no column {column!r}; it has {listed(list(row))}")
    if row[column] is None:
        raise DataError(f"{where}, column {column!r} is empty (None); fill it or remove the row")
    return row[column]


def text(row: Row, column: str, where: str) -> str:
    """A cell that must hold text; see :func:`present`."""
    value = present(row, column, where)
    if not isinstance(value, str):
        raise DataError(f"{where}, column {column!r} must be text, not {show(value)}; write it as a string")
    return value


def whole_text(value: object, where: str) -> None:
    """Check that no text in a row, however deep, has half of a surrogate pair: no tokenizer takes it.

    Args:
        value: a row, or a part of one.
        where: file and row, for the error.

    Raises:
        DataError: some text has.
    """
    if isinstance(value, Mapping):
        for column, cell in value.items():
            whole_text(column, where)
            whole_text(cell, f"{where}, {column!r}" if ", column" in where else f"{where}, column {column!r}")
    elif isinstance(value, list):
        for number, item in enumerate(value, start=1):
            whole_text(item, f"{where}, item {number}")
    elif isinstance(value, str) and (half := _SURROGATE.search(value)):
        raise DataError(
            f"{where} has {half[0]!r} at character {half.start() + 1}, half of a surrogate pair, which is not text; "
            "remove it, or write the other half, too"
        )


_SURROGATE = re.compile("[\ud800-\udfff]")


def integers(row: Row, column: str, where: str) -> np.ndarray:
    """A cell that must hold a list of integers, as (length,) int64; see :func:`present`."""
    value = np.asarray(present(row, column, where))
    if value.ndim != 1 or not (value.dtype.kind in "iu" or value.size == 0):
        raise DataError(f"{where}, column {column!r} must be a list of integers, not {show(row[column])}")
    return value.astype(np.int64)
