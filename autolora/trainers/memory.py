"""Running out of memory."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from autolora.bases.memory import collected, out_of_memory

if TYPE_CHECKING:
    import torch

__all__ = ["collected", "out_of_memory", "peak"]


def peak(device: torch.device) -> int | None:
    """Most bytes taken so far, of the device or, on a CPU, of the process; None if the platform does not tell."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
