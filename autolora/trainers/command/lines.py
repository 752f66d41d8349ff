"""Lines of a file that grows."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

_END = re.compile(rb"\r\n|\n|\r")
CHUNK = 1 << 20
"""Most bytes that are read at once, and that are kept of a line: of a longer one, its end."""
REMEMBERED = 4096
"""Bytes at the beginning and at the end of what was read by which it is noticed that a file was written again."""


@dataclass
class Lines:
    """Gives each line of a file once, as soon as it is whole.

    A file that is written again from its beginning, and not only at its end, is read again from its beginning.

    Attributes:
        path: of the file, which need not exist.
        offset: byte to begin at; then that up to which it was read.
        number: of the lines given.
    """

    path: Path
    offset: int = 0
    number: int = 0
    _seen: tuple[int, int, int] | None = field(default=None, repr=False)
    _begin: int = field(init=False, repr=False)
    _head: bytes = field(default=b"", repr=False)
    _tail: bytes = field(default=b"", repr=False)
    _open: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        self._begin = self.offset

    def new(self, ended: bool = False) -> Iterator[tuple[int, str, bool]]:
        """Lines that were written since the last call, each with its number and whether it has an end, which may be any
        of those in use.

        Args:
            ended: nothing more will be written: a last line may lack its end.
        """
        try:
            now = os.stat(self.path)
        except FileNotFoundError:
            return
        state = (now.st_ino, now.st_size, now.st_mtime_ns)
        if state != self._seen:
            with self.path.open("rb") as file:
                if not self._is_continued(file):
                    self._again()
                yield from self._read(file)
        self._seen = state
        if ended and self._open:
            yield self._line(self._open.removesuffix(b"\r"), whole=self._open.endswith(b"\r"))
            self._open = b""

    def _is_continued(self, file: BinaryIO) -> bool:
        """Whether the file still holds what was read of it."""
        file.seek(self._begin)
        if file.read(len(self._head)) != self._head:
            return False
        file.seek(self.offset - len(self._tail))
        return file.read(len(self._tail)) == self._tail

    def _again(self) -> None:
        self.offset = self.number = self._begin = 0
        self._head = self._tail = self._open = b""

    def _read(self, file: BinaryIO) -> Iterator[tuple[int, str, bool]]:
        file.seek(self.offset)
        while chunk := file.read(CHUNK):
            self.offset += len(chunk)
            self._head += chunk[: max(0, REMEMBERED - len(self._head))]
            self._tail = (self._tail + chunk)[-REMEMBERED:]
            content = self._open + chunk
            start = 0
            for end in _END.finditer(content):
                if end.end() == len(content) and end[0] == b"\r":  # the other half of its end may follow
                    break
                yield self._line(content[start : end.start()], whole=True)
                start = end.end()
            self._open = content[start:][-CHUNK:]

    def _line(self, content: bytes, whole: bool) -> tuple[int, str, bool]:
        self.number += 1
        return self.number, content.decode(errors="replace"), whole
