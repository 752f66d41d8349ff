"""Whether a command has failed for lack of memory, by the last lines of its output."""

from __future__ import annotations

import re
from collections.abc import Sequence

_WHOSE = r"^\s*(?:\[[^\]]*\]:?\s*)*"
"""What launchers put before the lines of their processes, as "[rank0]: "."""
_ENDS = re.compile(
    _WHOSE
    + r"(?:[\w.]+(?:Error|Exception|Interrupt|Exit)\b(?::|\s*$)|CUDA out of memory\b|terminate called |what\(\): )"
)
"""How a program says what has ended it: an exception of Python's or of C++'s; or CUDA's, which some print alone."""
_LAUNCHER = re.compile(_WHOSE + r"[\w.]*(?:ChildFailedError|CalledProcessError|ProcessExitedException|SystemExit)\b")
"""Exceptions of what had started the program, which come after the program's own."""
_LAUNCHER_LINES = 60
"""What a launcher may print of its own."""
_MEMORY = re.compile(
    r"(?:^|::)[\w.]*(?:OutOfMemory|OutOfMemoryError|MemoryError)\b"
    r"|\b(?:out of memory|cannot allocate memory|std::bad_alloc)\b",
    re.I,
)


def lacking(output: Sequence[str], most: int) -> str | None:
    """The line of the exception that has ended a command, if that was a lack of memory; else None.

    What a command says of memory before another exception, or anywhere else in a line, does not count.

    Args:
        output: its lines.
        most: how many of the last ones are looked at.
    """
    for back, line in enumerate(reversed(output)):
        if back >= most:
            return None
        if _LAUNCHER.match(line):
            most = max(most, back + _LAUNCHER_LINES)
        elif _ENDS.match(line):
            return line if _MEMORY.search(re.sub(_WHOSE, "", line)) else None
    return None
