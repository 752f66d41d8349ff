"""A table of rows, wherever they came from."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
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

    def place(self, index: int) -> str:
        """File and row of the row at a 0-based index, for error messages."""
        return f"{self.name}, row {self.numbers[index]}"

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


@dataclass(frozen=True, eq=False)
class JoinedTable(Table):
    """Rows of several tables, one after the other; each keeps its own name and row numbers in error messages.

    Args:
        parts: the tables, all with the same columns.
        ends: the number of rows up to and with each part.
    """

    parts: Sequence[Table]
    ends: Sequence[int]

    @classmethod
    def join(cls, name: str, parts: Sequence[Table]) -> JoinedTable:
        """The rows of the tables as one.

        Raises:
            DataError: a table has no rows, or other columns than the first.
        """
        first = parts[0]
        for part in parts:
            if len(part) == 0:
                raise DataError(f"{part.name} holds no rows; leave it out of {name}")
            different = sorted(set(part.columns) ^ set(first.columns))
            if different:
                raise DataError(
                    f"{part.name} and {first.name} have different columns: only one of them has "
                    f"{', '.join(map(repr, different))}; files that are read together need the same columns"
                )
        ends = list(accumulate(map(len, parts)))

        def fetch(indices: Sequence[int], columns: Sequence[str]) -> list[Row]:
            wanted: dict[int, list[int]] = defaultdict(list)
            for position, index in enumerate(indices):
                wanted[bisect_right(ends, index)].append(position)
            rows: list[Row] = [{}] * len(indices)
            for number, positions in wanted.items():
                begin = ends[number] - len(parts[number])
                found = parts[number].fetch([indices[position] - begin for position in positions], columns)
                for position, row in zip(positions, found, strict=True):
                    rows[position] = row
            return rows

        return cls(name, first.columns, range(1, ends[-1] + 1), fetch, parts, ends)

    def place(self, index: int) -> str:
        part = bisect_right(self.ends, index)
        return self.parts[part].place(index - self.ends[part] + len(self.parts[part]))
