"""JSON: a list of objects, alone or under the key "data"."""

from __future__ import annotations

import json

from autolora.tasks.data.cells import whole_text
from autolora.tasks.data.errors import DataError, show
from autolora.tasks.data.local import LocalFile
from autolora.tasks.data.readers import json_lines
from autolora.tasks.data.readers.reader import Reader, register
from autolora.tasks.data.table import Table


def read(file: LocalFile) -> Table:
    """The rows of the list; JSON lines are read, too, which many hub data sets have under the name .json."""
    text = file.text()
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        if _first_line_is_an_object(text):
            return json_lines.read(file)
        raise DataError(f"{file.name} is not JSON: {error}") from None
    if isinstance(parsed, dict):
        if not isinstance(parsed.get("data"), list):
            raise DataError(
                f'{file.name} must hold a list of rows or {{"data": [...]}}; it has the keys {list(parsed)}'
            )
        parsed = parsed["data"]
    if not isinstance(parsed, list):
        raise DataError(f'{file.name} must hold a list of rows or {{"data": [...]}}, not {show(parsed)}')
    if json_lines.surrogates_in(text):
        for number, row in enumerate(parsed, start=1):
            whole_text(row, f"{file.name}, row {number}")
    return Table.of(file.name, parsed)


def _first_line_is_an_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text.lstrip().split("\n", 1)[0]), dict)
    except (ValueError, RecursionError):
        return False


register(Reader(".json", read))
