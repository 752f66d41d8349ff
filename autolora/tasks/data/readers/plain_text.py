"""Plain text: a row a line, in the column "text"."""

from __future__ import annotations

from autolora.tasks.data.local import LocalFile
from autolora.tasks.data.readers.reader import Reader, register
from autolora.tasks.data.table import Table


def read(file: LocalFile) -> Table:
    """The lines that are not blank, without their line breaks."""
    numbered = [(number, line.rstrip("\r\n")) for number, line in file.lines()]
    return Table.of(file.name, [{"text": line} for _, line in numbered], [number for number, _ in numbered])


register(Reader(".txt", read))
