"""Lines of a file that grows."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_END = re.compile(rb"\r\n|\n|\r")


@dataclass
class Lines:
    """Gives each line of a file once, as soon as it is whole.

    Attributes:
        path: of the file, which need not exist.
        offset: byte to begin at; then that of the next line.
        number: of the lines given.
    """

    path: Path
    offset: int = 0
    number: int = 0
    _seen: tuple[int, int, int] | None = field(default=None, repr=False)

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
        if state != self._seen and now.st_size < self.offset:  # written again from its beginning
            self.offset = self.number = 0
        if now.st_size > self.offset and (state != self._seen or ended):
            with self.path.open("rb") as file:
                file.seek(self.offset)
                content = file.read()
            start = 0
            for end in _END.finditer(content):
                self.number += 1
                self.offset += end.end() - start
                yield self.number, content[start : end.start()].decode(errors="replace"), True
                start = end.end()
            if ended and start < len(content):
                self.number += 1
                self.offset += len(content) - start
                yield self.number, content[start:].decode(errors="replace"), False
        self._seen = state
