"""What has ended a command that failed: told by its exit code, and by what it and its launchers say last.

torchrun, accelerate, DeepSpeed and mpirun end with a code of their own if one of their processes fails or is killed,
and say which in their last lines.
"""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from autolora.trainers.command import memory

LAST_LINES = 20
"""Lines at the end in which launchers other than torchrun say why they end."""
SHELL = 128
"""What a shell adds to the number of the signal that has killed its command."""
OWN = ("SIGABRT", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP")
"""Signals by which a program ends itself; all others come from elsewhere."""

_RANK = re.compile(r"\brank\s*:\s*(\d+)\s*\(local_rank: \d+\)")
_EXITCODE = re.compile(r"\bexitcode\s*:\s*(-?\d+)\s*\(pid: (\d+)\)")
_ENDED_BY_LAUNCHER = re.compile(r"\b(?:Sending|Unable to shutdown) process (\d+) (?:closing signal|via)\b")
"""Lines of torchrun, which accelerate also runs: it lists processes that failed, also those that it has ended."""
_KILLED = (
    re.compile(r"SignalException: Process \d+ got signal: (?P<number>\d+)"),  # torchrun itself
    re.compile(r"CalledProcessError\b.*\bdied with <Signals\.(?P<name>SIG\w+): \d+>"),  # accelerate with one process
    re.compile(r"ProcessExitedException: process \d+ terminated with signal (?P<name>SIG\w+)"),  # torch's spawn
    re.compile(r"\bexits with return code = -(?P<number>\d+)"),  # DeepSpeed
    re.compile(r"\bexited on signal (?P<number>\d+)"),  # mpirun
)


@dataclass(frozen=True)
class Ending:
    """What has ended a command that failed.

    Attributes:
        kind: "killed" by a signal from elsewhere, itself or one of its processes; "memory" ran out; an "error";
            "aborted" by a signal of its own; or lost "contact" between its processes, with no other error.
        said: in words, of the command.
    """

    kind: Literal["killed", "memory", "error", "aborted", "contact"]
    said: str = ""


WEIGHT = ("killed", "memory", "error", "aborted", "contact")
"""Kinds of endings. If several parts of a command failed, the first of these kinds is the cause."""


def of(code: int, output: Sequence[str]) -> Ending:
    """Judge a command.

    Args:
        code: that it ended with: negative for a signal, above 128 for one that a shell tells of; not 0.
        output: its last lines.
    """
    found = list(_signals(code, output))
    outside = [said for said, name in found if name not in OWN]
    if outside:
        return Ending("killed", f"{outside[0]}")
    program = memory.of_program(output)
    most = LAST_LINES if len(program) == len(output) else LAST_LINES + memory.LAUNCHER_LINES
    output = program
    lacking = memory.lacking(output, most)
    if lacking is not None and all(name == "SIGABRT" for _, name in found):
        return Ending("memory", lacking.strip())
    contact, others = memory.lost_contact(output)
    if not found:
        return Ending("contact", contact.strip()) if contact is not None and not others else Ending("error")
    if others and not any(said.startswith(ITSELF) for said, _ in found):
        return Ending("error")  # of one process, at whose end another one has aborted
    return Ending("aborted", found[0][0])


ITSELF = "was"
"""How it is said that the command itself was killed."""


def _signals(code: int, output: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Signals that ended the command or its processes, each in words and by name; without those its launcher sent."""
    name = _name(-code if code < 0 else code - SHELL)
    if name is not None:
        yield f"{ITSELF} killed by {name}", name
    ended = {match[1] for line in output if (match := _ENDED_BY_LAUNCHER.search(line))}
    rank = "?"
    for line in output:
        if match := _RANK.search(line):
            rank = match[1]
        elif (match := _EXITCODE.search(line)) and match[2] not in ended:
            name = _name(-int(match[1]))
            if name is not None:
                yield f"lost process {match[2]}, rank {rank}, which was killed by {name}", name
    for line in output[-LAST_LINES:]:
        for pattern in _KILLED:
            if match := pattern.search(line):
                groups = match.groupdict()
                name = groups.get("name") or _name(int(groups["number"]))
                if name is not None:
                    yield f"lost a process, which was killed by {name}", name


def _name(number: int) -> str | None:
    """Name of a signal; None if there is none with the number."""
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return None
