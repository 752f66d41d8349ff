"""Where in a line for a POSIX shell one is: between words, or inside quotes that the line itself has opened."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_DELIMITER = re.compile(r"-?[ \t]*\\?(['\"]?)([^\s'\"<>|&;()]+)\1")
"""What follows << and ends the here-document."""
_BEFORE_A_COMMENT = " \t\n;&|("
COMMAND, GROUP, BACKTICKS, SINGLE, ESCAPING, DOUBLE, COMMENT, DOCUMENT = range(8)
_NAMES = {
    BACKTICKS: "inside backticks",
    SINGLE: "inside quotes",
    ESCAPING: "inside quotes",
    DOUBLE: "inside quotes",
    COMMENT: "in a comment",
    DOCUMENT: "in a here-document",
}


@dataclass
class Scanner:
    """Follows a line for the shell, a piece at a time.

    What a shell is told to read once more, as with ``eval``, is not followed.
    """

    _open: list[int] = field(default_factory=lambda: [COMMAND])
    _escaped: bool = False
    _before: str = ""
    _documents: list[str] = field(default_factory=list)
    _line: str = ""

    @property
    def place(self) -> str | None:
        """Where an argument would stand that comes next, in words; None where it may be quoted as a word."""
        if self._escaped:
            return "after a backslash"
        return _NAMES.get(BACKTICKS if BACKTICKS in self._open else self._open[-1])

    def word(self) -> None:
        """Pass over an argument."""
        self._escaped, self._before = False, "x"
        self._line += "\0"

    def text(self, text: str) -> None:
        """Pass over a piece of the line."""
        for index, letter in enumerate(text):
            if self._escaped:
                self._escaped = False
            else:
                self._take(letter, text[index + 1 :])
            self._before = letter

    def _take(self, letter: str, rest: str) -> None:
        mode = self._open[-1]
        if mode == DOCUMENT:
            self._in_document(letter)
        elif mode == COMMENT:
            if letter == "\n":
                self._open.pop()
                self._take(letter, rest)
        elif mode == SINGLE:
            if letter == "'":
                self._open.pop()
        elif letter == "\\":
            self._escaped = True
        elif mode == ESCAPING:
            if letter == "'":
                self._open.pop()
        elif letter == "`":
            self._toggle(BACKTICKS)
        elif letter == '"':
            self._toggle(DOUBLE)
        elif mode == DOUBLE:
            if letter == "(" and self._before == "$":
                self._open.append(GROUP)
        else:
            self._in_command(letter, rest)

    def _toggle(self, mode: int) -> None:
        if self._open[-1] == mode:
            self._open.pop()
        else:
            self._open.append(mode)

    def _in_command(self, letter: str, rest: str) -> None:
        if letter == "'":
            self._open.append(ESCAPING if self._before == "$" else SINGLE)
        elif letter == "(":
            self._open.append(GROUP)
        elif letter == ")" and self._open[-1] == GROUP:
            self._open.pop()
        elif letter == "#" and (not self._before or self._before in _BEFORE_A_COMMENT):
            self._open.append(COMMENT)
        elif letter == "<" and self._before != "<" and rest.startswith("<") and not rest.startswith("<<"):
            found = _DELIMITER.match(rest, 1)
            if found:
                self._documents.append(found[2])
        elif letter == "\n" and self._documents:
            self._open.append(DOCUMENT)
            self._line = ""

    def _in_document(self, letter: str) -> None:
        if letter != "\n":
            self._line += letter
            return
        if self._line.lstrip("\t") == self._documents[0]:
            self._documents.pop(0)
            if not self._documents:
                self._open.pop()
        self._line = ""
