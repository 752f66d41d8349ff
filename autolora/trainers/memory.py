"""Running out of memory, and how much of it was taken.

On CUDA what counts is what the process has allocated on the device, as torch tells it. On a CPU it is the resident set
of the process, Python and its libraries included, at its highest: Linux lets a process begin that count again, so that
each trial has its own; elsewhere it is the highest since the process began. A command is counted with all processes
that it starts, see :mod:`autolora.trainers.command.resident`.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from autolora.adapters.memory import size
from autolora.bases.memory import collected, out_of_memory

if TYPE_CHECKING:
    import torch

__all__ = ["MemoryLimitError", "Peak", "collected", "out_of_memory", "peak"]

CLEAR, CLEAR_PEAK = Path("/proc/self/clear_refs"), "5"
"""What Linux is told with to begin the count of the resident set again."""


class MemoryLimitError(MemoryError):
    """More than ``max_memory`` was taken."""


_highest: dict[str, int] = {}
"""Most bytes by device before the count was begun again: like the count itself, it is of the whole process."""


def peak(device: torch.device) -> int | None:
    """Most bytes taken so far, of the device or, on a CPU, of the process; None if the platform does not tell."""
    now = _counted(device)
    return None if now is None else max(now, _highest.get(str(device), 0))


class Peak:
    """Most bytes taken since it was made, or since :meth:`begin`.

    Args:
        device: on which.
        highest: bytes of earlier work that counts, too.
        most: bytes that may be taken; None means as many as there are.
    """

    def __init__(self, device: torch.device, highest: int = 0, most: int | None = None) -> None:
        self._device, self._before, self._most = device, highest, most
        self.begin()

    def begin(self) -> None:
        """Begin again; what was taken before counts no more, where the platform can tell it apart."""
        _highest[str(self._device)] = peak(self._device) or 0
        if self._device.type == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats(self._device)
            return
        with contextlib.suppress(OSError):  # not Linux, or not allowed: the highest since the process began
            CLEAR.write_text(CLEAR_PEAK, encoding="ascii")

    def bytes(self) -> int:
        """Most bytes so far, what was begun with included; 0 if the platform does not tell."""
        return max(self.since(), self._before)

    def check(self) -> None:
        """Raise :class:`MemoryLimitError` if more was taken since :meth:`begin` than may be."""
        if self._most is not None and self.since() > self._most:
            whose = "the process" if self._device.type == "cpu" else self._device
            raise MemoryLimitError(f"{whose} took {size(self.since())}, and max_memory is {size(self._most)}")

    def since(self) -> int:
        """Most bytes since :meth:`begin`; 0 if the platform does not tell."""
        return _counted(self._device) or 0


def _counted(device: torch.device) -> int | None:
    """Most bytes since the count began."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
