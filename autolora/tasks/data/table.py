"""A table of rows, wherever they came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autolora.tasks.data.errors import DataError, show

Row = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of one source.

    Args:
        name: what error messages call it.
        columns: all columns; in a JSON file a single row may lack one.
        numbers: the 1-based row number of every row (for JSONL the line), for error messages.
        fetch: ``fetch(indices, columns)``, the rows at these 0-based indices; extra columns may come along.
    """

    name: str
    columns: list[str]
    numbers: Sequence[int]
    fetch: Callable[[Sequence[int], Sequence[str]], list[Row]]

    def __len__(self) -> int:
        return len(self.numbers)

    @classmethod
    def of(cls, name: str, rows: Sequence[object], numbers: Sequence[int] | None = None) -> Table:
        """A table of rows in memory.

        Args:
            name: what error messages call it.
            rows: mappings from columns to values.
            numbers: as in the class; by default 1, 2, ...

        Raises:
            DataError: a row is not a mapping.
        """
        numbers = numbers if numbers is not None else range(1, len(rows) + 1)
        columns: dict[str, None] = {}
        checked: list[Row] = []
        for number, row in zip(numbers, rows, strict=True):
            if not isinstance(row, Mapping):
                raise DataError(f"{name}, row {number} must be an object with columns, not {show(row)}")
            columns.update(dict.fromkeys(row))
            checked.append(row)
        return cls(name, list(columns), numbers, lambda indices, _: [checked[i] for i in indices])
