"""A local file of rows: which kind it is, its content as bytes, text or lines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from autolora import files
from autolora.tasks.data.compression import COMPRESSIONS, decompressed
from autolora.tasks.data.errors import DataError, show

BLOCK = 1 << 20


@dataclass(frozen=True)
class LocalFile:
    """A file, compressed or not.

    Attributes:
        path: where it is.
        name: what errors call it.
    """

    path: Path
    name: str

    @property
    def compression(self) -> str:
        """A key of COMPRESSIONS, or "" for none."""
        last = self.path.suffix.lower()
        return last if last in COMPRESSIONS else ""

    @property
    def suffix(self) -> str:
        """That of its content, such as ".jsonl", in lower case."""
        return (Path(self.path.stem) if self.compression else self.path).suffix.lower()

    def opened(self) -> AbstractContextManager[BufferedReader]:
        """Its content; raises DataError if that cannot be decompressed, or is a Git LFS pointer."""
        with self.path.open("rb") as file:
            if files.is_pointer(file.read(len(files.LFS))):
                raise DataError(files.POINTER.format(self.name))
        return decompressed(self.path, self.name, self.compression)

    def content(self) -> bytes:
        with self.opened() as file:
            return file.read()

    def digest(self) -> str:
        """Hex SHA-256 of its content, decompressed."""
        digest = hashlib.sha256()
        with self.opened() as file:
            while block := file.read(BLOCK):
                digest.update(block)
        return digest.hexdigest()

    def text(self) -> str:
        """All of its content, in UTF-8 or as its byte order mark says; raises DataError in another encoding."""
        content = self.content()
        return self._decoded(content, json.detect_encoding(content))

    def lines(self) -> Iterator[tuple[int, str]]:
        """Its lines with their 1-based numbers, read as they are asked for; blank ones are left out.

        Raises:
            DataError: a line is in another encoding.
        """
        with self.opened() as file:
            encoding = json.detect_encoding(file.peek(4)[:4])
            if encoding in ("utf-8", "utf-8-sig"):
                lines: Iterable[str] = (self._decoded(line, encoding, row) for row, line in enumerate(file, start=1))
            else:  # in which a line break is several bytes
                lines = self._decoded(file.read(), encoding).split("\n")
            yield from ((number, line) for number, line in enumerate(lines, start=1) if line.strip())

    def _decoded(self, content: bytes, encoding: str, row: int = 1) -> str:
        try:
            return content.decode(encoding)
        except UnicodeDecodeError as error:
            row += content[: error.start].decode(encoding, errors="replace").count("\n")
            expected = "UTF-8" if encoding.startswith("utf-8") else f"{encoding.upper()}, which it begins in"
            raise DataError(
                f"{self.name}, row {row} is not text in {expected}: {error.reason}, "
                f"{show(content[error.start : error.end])} after {show(content[: error.start][-20:])}; save the file "
                "as UTF-8"
            ) from None
