"""How much memory a command takes: the resident set of its process and all that it has started, added up.

Pages that processes share count once in each of them, so that data loaders which were forked count more than they take.
What lies on a GPU is not in it: a command that knows reports ``peak_memory`` itself, in bytes, which then counts.
"""

from __future__ import annotations

import time

import psutil

EVERY_SECONDS = 0.5
"""How often it is looked."""


class Resident:
    """The resident set of a tree of processes.

    Args:
        pid: of its root.
    """

    def __init__(self, pid: int) -> None:
        self._pid, self._due, self._now = pid, 0.0, 0

    def now(self) -> int:
        """Bytes, as of the last look; 0 if the processes have ended."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + EVERY_SECONDS
            self._now = self._look()
        return self._now

    def _look(self) -> int:
        total = 0
        try:
            root = psutil.Process(self._pid)
            processes = [root, *root.children(recursive=True)]
        except psutil.Error:
            return 0
        for each in processes:
            try:
                total += each.memory_info().rss
            except psutil.Error:  # it has just ended
                continue
        return total
