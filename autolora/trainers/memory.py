"""Running out of memory."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, of the machine or of its accelerator."""
    from accelerate.utils.memory import should_reduce_batch_size

    return isinstance(error, MemoryError) or should_reduce_batch_size(error)


def collected() -> None:
    """Give back what an attempt that memory ran out in has left; call it once the error, whose frames hold the attempt,
    is gone.

    Garbage is collected here and not before every attempt, as accelerate's ``find_executable_batch_size`` does: with
    the libraries loaded that takes half a second.
    """
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


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
