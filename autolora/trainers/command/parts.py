"""The parts of a command that is started on several nodes, or on one: what each must be able to do, and all as one."""

from __future__ import annotations

import os
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from autolora.trainers.command.process import WAIT_SECONDS

TAIL_BYTES = 64 * 1024
"""Most bytes of output that are read to tell what has ended a command."""
SETTLE_SECONDS = 15.0
"""How long other parts get to say why they end when one has failed: it may have failed because of them."""


@dataclass(frozen=True)
class Start:
    """What is started on a node.

    Attributes:
        command: a line for the shell, or arguments.
        cwd: folder that it runs in.
        environment: variables beside those of the process that starts it.
        told: file with the trial.
        log: file that the output is appended to.
        gpus: ``resources.gpu``.
    """

    command: str | Sequence[str]
    cwd: str
    environment: Mapping[str, str]
    told: Path
    log: Path
    gpus: float | None


class Part(Protocol):
    """What runs on one node."""

    @abstractmethod
    def wait(self, seconds: float) -> int | None:
        """The exit code as soon as it has ended, negative for a signal; None if it runs on after so long.

        Raises:
            LostSegment: its node is gone.
        """

    @abstractmethod
    def resident(self) -> int:
        """Bytes that its processes have resident, as of a moment ago; 0 if they have ended, or it is not known yet.

        Raises:
            LostSegment: its node is gone.
        """

    @abstractmethod
    def terminate(self, seconds: float) -> None:
        """Ask it to end, and wait for that so long."""

    @abstractmethod
    def end(self) -> None:
        """Kill what is left of it."""

    @abstractmethod
    def tail(self) -> list[str]:
        """Last lines of its output, once it has ended."""


class Peer(Protocol):
    """Another node, on which parts are started."""

    @abstractmethod
    def prepare(self, told: Path) -> None:
        """End whatever is left there of the trial with this file.

        Raises:
            LostSegment: the node is gone.
        """

    @abstractmethod
    def start(self, start: Start) -> Part:
        """Start a part.

        Raises:
            CommandError: it cannot be started.
            LostSegment: the node is gone.
        """


class Whole:
    """Parts as one: they end together.

    Args:
        parts: that of the node that reports first.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts

    def wait(self, seconds: float) -> Sequence[int] | None:
        """The exit codes once all have ended well, or one has failed and the others had time to; None if it runs on.
        A part that has not ended then counts as one that has ended well.

        Raises:
            LostSegment: a node is gone.
        """
        codes = self._codes(seconds)
        if None in codes and not any(codes):
            return None
        until = time.monotonic() + SETTLE_SECONDS
        while None in codes and time.monotonic() < until:
            time.sleep(WAIT_SECONDS)
            codes = self._codes(0)
        return [code or 0 for code in codes]

    def _codes(self, seconds: float) -> list[int | None]:
        return [part.wait(0 if number else seconds) for number, part in enumerate(self._parts)]

    def resident(self) -> int:
        """Bytes that the processes of one part have resident, of the part that has most."""
        return max(part.resident() for part in self._parts)

    def terminate(self, seconds: float) -> None:
        """Ask all to end, the first one last: it is waited for."""
        for part in reversed(self._parts):
            part.terminate(seconds)

    def end(self) -> None:
        """Kill what is left of all of them; the first error is raised when all have been tried."""
        errors = []
        for part in self._parts:
            try:
                part.end()
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def tails(self) -> list[list[str]]:
        """Last lines of what each has said."""
        return [part.tail() for part in self._parts]


def last_lines(log: Path, begins: int, ends: int) -> list[str]:
    """Last lines of a stretch of a file, without empty ones; none if somebody has removed the file."""
    try:
        with log.open("rb") as file:
            file.seek(max(begins, ends - TAIL_BYTES))
            content = file.read(max(0, ends - file.tell())).decode(errors="replace")
    except FileNotFoundError:
        return []
    return [line for line in content.splitlines() if line.strip()]


def environment_of(extra: Mapping[str, str], cards: Mapping[str, str]) -> dict[str, str]:
    """All variables that a command finds, those of this process among them."""
    unbuffered = {"PYTHONUNBUFFERED": "1"}  # or a program that prints at every step would seem to have stalled
    return {**unbuffered, **os.environ, **cards, **extra}
