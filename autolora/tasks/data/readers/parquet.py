"""Parquet."""

from __future__ import annotations

from autolora.tasks.data.errors import DataError
from autolora.tasks.data.local import LocalFile
from autolora.tasks.data.readers.arrow import of_arrow
from autolora.tasks.data.readers.reader import Reader, register
from autolora.tasks.data.table import Table


def read(file: LocalFile) -> Table:
    """The rows of the file."""
    from pyarrow import ArrowException, BufferReader, parquet

    source = BufferReader(file.content()) if file.compression else file.path
    try:
        return of_arrow(file.name, parquet.read_table(source))
    except (ArrowException, OSError) as error:
        raise DataError(f"{file.name} cannot be read as Parquet: {error}") from None


register(Reader(".parquet", read))
