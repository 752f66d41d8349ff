"""Rows of an Arrow table, which CSV and Parquet are read into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from autolora.tasks.data.errors import DataError
from autolora.tasks.data.table import Row, Table

if TYPE_CHECKING:
    import pyarrow


def of_arrow(name: str, table: pyarrow.Table) -> Table:
    """The table, whose rows become Python objects when they are fetched.

    Raises:
        DataError: two columns have the same name.
    """
    if len(set(table.column_names)) < len(table.column_names):
        raise DataError(f"{name} names a column twice: {table.column_names}")

    def fetch(indices: Sequence[int], columns: Sequence[str]) -> list[Row]:
        return table.select(list(columns)).take(list(indices)).to_pylist() if indices else []

    return Table(name, list(table.column_names), range(1, len(table) + 1), fetch)
