"""Whether a command has failed for lack of memory, or since its processes lost one another, by its last lines."""

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
_CONTACT = re.compile(
    _WHOSE + r"(?:[\w.]*\b(?:Dist(?:Network|Store|Backend)Error|Rendezvous\w*Error)\b"
    r"|[\w.]+Error: .*(?:/gloo/|\bNCCL\b|\bProcessGroup\w*).*)"
)
"""Exceptions of collective operations: another process is gone, or cannot be reached."""
_LIST = re.compile(r"[\w.]*\bChildFailedError:\s*$")
_LOG = re.compile(r"[EWI]\d{4} .*\btorch/distributed/elastic/")
"""What torchrun's list of failed processes begins with, and lines of its log."""
LAUNCHER_LINES = 60
"""What a launcher may print of its own, or a process of its traceback."""
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
            most = max(most, back + LAUNCHER_LINES)
        elif _ENDS.match(line):
            if _MEMORY.search(re.sub(_WHOSE, "", line)):
                return line
            if not _CONTACT.match(line):
                return None
            most = max(most, back + LAUNCHER_LINES)  # another process may have had the error that it is about
    return None


def of_program(output: Sequence[str]) -> Sequence[str]:
    """The output without the traceback and the list of processes that torchrun ends with; all of it if that is
    all there is, or if another error comes after.

    Args:
        output: its last lines.
    """
    ends = [at for at, line in enumerate(output) if _LIST.match(line)]
    after = output[ends[-1] + 1 :] if ends else []
    if not ends or any(_ENDS.match(line) and not _LAUNCHER.match(line) for line in after):
        return output  # something else has failed since, or the list itself has the errors
    begins = [at for at, line in enumerate(output[: ends[-1]]) if line.startswith("Traceback (most recent call last)")]
    kept = output[: begins[-1] if begins else ends[-1]]
    return [line for line in kept if not _LOG.match(line)] or output


def lost_contact(output: Sequence[str]) -> tuple[str | None, bool]:
    """The exception of a process that has lost the others, None if there is none; and whether there are exceptions
    beside such and those of launchers.

    Args:
        output: its last lines.
    """
    ends = [line for line in output if _ENDS.match(line) and not _LAUNCHER.match(line)]
    contact = [line for line in ends if _CONTACT.match(line)]
    return (contact[0] if contact else None), len(contact) < len(ends)
