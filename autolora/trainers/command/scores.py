"""Where the score of a segment is found, if the command does not report it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autolora import files
from autolora.trainers.command.errors import CommandError
from autolora.trainers.command.reports import EVAL

MOST_KEYS = 20
"""Keys that an error lists."""


@dataclass
class ScoreFile:
    """A JSON file with the score, written by the command: a document, or a document a line.

    Args:
        path: of the file.
        metric: name of the score.
        whose: trial, command and log, for errors.
    """

    path: Path
    metric: str
    whose: str = ""

    def __post_init__(self) -> None:
        self._before = self._state()

    def _state(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def read(self) -> float:
        """The score that was written since this was made; of several, the last.

        Raises:
            CommandError: there is none.
        """
        try:
            return self._found()
        except ValueError as error:
            raise CommandError(f"metric_file: {files.shown(self.path)} {error}{self.whose}") from None

    def reported(self, names: Sequence[str]) -> dict[str, Any]:
        """What the file holds under other names, or under them with "eval_" in front; what it lacks is left out."""
        document = _documents(self.path.read_text(encoding="utf-8-sig", errors="replace"))
        found = {name: next(_named(document, (name, EVAL + name)), None) for name in names}
        return {name: value for name, value in found.items() if value is not None}

    def _found(self) -> float:
        if self._state() is None:
            raise ValueError("is not there: the command ended with exit code 0 and did not write it")
        if self._state() == self._before:
            raise ValueError(
                "is as it was before: the command ended with exit code 0 and did not write it, so what is in it is "
                "of an earlier run. Let the command evaluate whenever it is run, also where it has nothing to train"
            )
        document = _documents(self.path.read_text(encoding="utf-8-sig", errors="replace"))
        found = next(_named(document, (self.metric, EVAL + self.metric)), None)
        if isinstance(found, bool) or not isinstance(found, (int, float, str)):
            keys = list(dict.fromkeys(_keys(document)))
            held = ", ".join(keys[:MOST_KEYS]) + (f" and {len(keys) - MOST_KEYS} more" if len(keys) > MOST_KEYS else "")
            raise ValueError(
                f"holds no number under {self.metric!r}, the name of the metric; its keys: {held or 'none'}"
            )
        try:
            return float(found)
        except ValueError:
            raise ValueError(f"has {self.metric} = {found!r}, which is not a number") from None


def _documents(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from None


def _named(document: Any, names: tuple[str, ...]) -> Iterator[Any]:
    """Values under one of the names, those of the outermost mapping and of the last item of a list first."""
    if isinstance(document, dict):
        yield from (document[name] for name in names if name in document)
        for value in document.values():
            yield from _named(value, names)
    elif isinstance(document, list):
        for value in reversed(document):
            yield from _named(value, names)


def _keys(document: Any) -> Iterator[str]:
    """Keys of all mappings, the outermost first."""
    if isinstance(document, dict):
        yield from document
        for value in document.values():
            yield from _keys(value)
    elif isinstance(document, list):
        for value in document:
            yield from _keys(value)


def pattern_reader(pattern: str, metric: str, whose: str = "") -> Any:
    """Reads the score off lines of output.

    Args:
        pattern: regular expression whose first group is the score.
        metric: its name.
        whose: trial, command and log, for errors.
    """
    expression = re.compile(pattern)

    def heard(line: str) -> dict[str, float] | None:
        found = expression.search(line)
        if found is None or found[1] is None:
            return None
        try:
            return {metric: float(found[1])}
        except ValueError:
            raise CommandError(
                f"metric_pattern: {pattern!r} found {found[1]!r} in {line.strip()[:200]!r}, which is not a number"
                f"{whose}"
            ) from None

    return heard
