"""CSV, and its like with tabs: a header, and every cell as text."""

from __future__ import annotations

import csv
import io
from functools import partial

from autolora.tasks.data.errors import DataError
from autolora.tasks.data.local import LocalFile
from autolora.tasks.data.readers.arrow import of_arrow
from autolora.tasks.data.readers.reader import Reader, register
from autolora.tasks.data.table import Table


def read(file: LocalFile, delimiter: str) -> Table:
    """The rows below the header; in errors that is row 1."""
    from pyarrow import ArrowInvalid, BufferReader, large_string
    from pyarrow import csv as arrow_csv

    text = file.text()
    header = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
    if not header:
        raise DataError(f"{file.name} holds no rows")
    content = text.encode()
    try:
        table = arrow_csv.read_csv(
            BufferReader(content),
            # one block, because a quoted text may be longer than the default block; in order, for row numbers
            read_options=arrow_csv.ReadOptions(use_threads=False, block_size=min(len(content) + 1, 2**31 - 1)),
            parse_options=arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            # every cell is text: "007" and "1.0" are answers here, not numbers
            convert_options=arrow_csv.ConvertOptions(column_types=dict.fromkeys(header, large_string())),
        )
    except ArrowInvalid as error:
        raise DataError(f"{file.name} is not valid CSV: {error} (the header is row 1)") from None
    return of_arrow(file.name, table)


register(Reader(".csv", partial(read, delimiter=",")))
register(Reader(".tsv", partial(read, delimiter="\t")))
