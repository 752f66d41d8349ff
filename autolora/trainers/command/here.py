"""The part of a command that runs on this node."""

from __future__ import annotations

import os
import time
from datetime import datetime

from autolora.trainers.command import parts
from autolora.trainers.command.parts import Start
from autolora.trainers.command.place import shown_cards
from autolora.trainers.command.process import Process
from autolora.trainers.command.resident import Resident


class Here(parts.Part):
    """A process of this machine, whose output is appended to a file between a line that says what runs and one that
    says how long it took.

    Args:
        start: what is started.
        title: of the output, such as the trial.

    Attributes:
        begins: where its output begins in the file.

    Raises:
        CommandError: it cannot be started, or there are fewer GPUs than it is to get.
    """

    def __init__(self, start: Start, title: str) -> None:
        environment = parts.environment_of(start.environment, shown_cards(start.gpus))
        self._log = start.log
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._output = self._log.open("ab")
        try:
            when = datetime.now().isoformat(" ", "seconds")
            shown = start.command if isinstance(start.command, str) else " ".join(start.command)
            self._output.write(f"=== {when} {title}\n$ {shown}\n".encode(errors="replace"))
            self._output.flush()
            self.begins = self._ends = self._output.tell()
            self._began = time.monotonic()
            self._process = Process(start.command, start.cwd, environment, self._output, start.told)
            self._resident = Resident(self._process.pid)
        except BaseException:
            self._output.close()
            raise

    @property
    def size(self) -> int:
        """Bytes of the file so far."""
        return os.fstat(self._output.fileno()).st_size

    def wait(self, seconds: float) -> int | None:
        return self._process.wait(seconds)

    def resident(self) -> int:
        return self._resident.now()

    def terminate(self, seconds: float) -> None:
        self._process.terminate(seconds)

    def end(self) -> None:
        try:
            self._process.end()
        finally:
            self._ends = self.size
            self._output.write(f"\n=== ended after {time.monotonic() - self._began:.1f} s\n\n".encode())
            self._output.close()

    def tail(self) -> list[str]:
        return parts.last_lines(self._log, self.begins, self._ends)
