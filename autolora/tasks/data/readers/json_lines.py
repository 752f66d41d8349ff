"""JSON lines: an object a line."""

from __future__ import annotations

import json

from autolora.tasks.data.cells import whole_text
from autolora.tasks.data.errors import DataError, show
from autolora.tasks.data.local import LocalFile
from autolora.tasks.data.readers.reader import Reader, register
from autolora.tasks.data.table import Table


def read(file: LocalFile) -> Table:
    """The rows of the lines that are not blank."""
    rows, numbers = [], []
    for number, line in file.lines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{file.name}, row {number} is not JSON ({error}): {show(line.strip())}; write one object a line"
            ) from None
        if surrogates_in(line):
            whole_text(row, f"{file.name}, row {number}")
        rows.append(row)
        numbers.append(number)
    return Table.of(file.name, rows, numbers)


def surrogates_in(text: str) -> bool:
    """Whether JSON has escapes of surrogates, which are good in pairs only; quick, for it looks at all text."""
    return "\\ud" in text or "\\uD" in text


register(Reader(".jsonl", read, also=(".ndjson",)))
