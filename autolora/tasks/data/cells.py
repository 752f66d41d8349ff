"""Checked access to the cells of a row. Errors name file, row and column."""

from __future__ import annotations

from collections.abc import Sequence

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


def integers(row: Row, column: str, where: str) -> np.ndarray:
    """A cell that must hold a list of integers, as (length,) int64; see :func:`present`."""
    value = np.asarray(present(row, column, where))
    if value.ndim != 1 or not (value.dtype.kind in "iu" or value.size == 0):
        raise DataError(f"{where}, column {column!r} must be a list of integers, not {show(row[column])}")
    return value.astype(np.int64)
