"""Where the score of a segment is found, if the command does not report it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autolora import files
from autolora.trainers.command.errors import CommandError
from autolora.trainers.command.reports import EVAL


@dataclass
class ScoreFile:
    """A JSON file with the score, written by the command: a document, or a document a line.

    Args:
        path: of the file.
        metric: name of the score.
    """

    path: Path
    metric: str

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
        shown = files.shown(self.path)
        if self._state() is None:
            raise CommandError(f"metric_file: the command ended well and did not write {shown}")
        if self._state() == self._before:
            raise CommandError(
                f"metric_file: the command ended well and did not write {shown}, which is as it was before: what is in "
                "it is of an earlier run. Let the command evaluate whenever it is run, also where it has nothing to "
                "train"
            )
        text = self.path.read_text(encoding="utf-8", errors="replace")
        found = next(_named(_documents(text, shown), (self.metric, EVAL + self.metric)), None)
        if isinstance(found, bool) or not isinstance(found, (int, float, str)):
            raise CommandError(f"metric_file: {shown} holds no number under {self.metric!r}, the name of the metric")
        try:
            return float(found)
        except ValueError:
            raise CommandError(f"metric_file: {shown} has {self.metric} = {found!r}, which is not a number") from None


def _documents(text: str, shown: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError as error:
        raise CommandError(f"metric_file: {shown} is not JSON: {error}") from None


def _named(document: Any, names: tuple[str, ...]) -> Iterator[Any]:
    """Values under one of the names, those of the outermost mapping and of the last item of a list first."""
    if isinstance(document, dict):
        yield from (document[name] for name in names if name in document)
        for value in document.values():
            yield from _named(value, names)
    elif isinstance(document, list):
        for value in reversed(document):
            yield from _named(value, names)


def pattern_reader(pattern: str, metric: str) -> Any:
    """Reads the score off lines of output.

    Args:
        pattern: regular expression whose first group is the score.
        metric: its name.
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
            ) from None

    return heard
