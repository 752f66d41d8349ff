"""Memory that runs out while a base is loaded or used: what to say, and what to do about it."""

from __future__ import annotations

import errno
import gc
from collections.abc import Iterator
from typing import TYPE_CHECKING

from autolora.adapters.memory import Device, size
from autolora.bases.capacity import capacity
from autolora.bases.errors import ModelError
from autolora.errors import first_line

if TYPE_CHECKING:
    import torch

WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of a weight in each dtype that bases are held in."""
FAR_BELOW = 0.5
"""Share of a device's memory below which weights fit beside what they are loaded and used with."""


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the machine or of its accelerator; also if an error was raised because of that."""
    return any(map(_is_out_of_memory, _chain(error)))


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


def exceeded(doing: str, device: torch.device, dtype: str, parameters: int | None, error: BaseException) -> ModelError:
    """The answer to memory that ran out.

    Args:
        doing: what was done, as in "loading the model".
        device: it was done for.
        dtype: of most weights, such as "float32".
        parameters: of the model; None if that is not known.
        error: what was raised.
    """
    there = capacity(device)
    need = None if parameters is None else parameters * WIDTHS.get(dtype, 4)
    if need is None:
        weights = "how much the weights take is not known"
    else:
        weights = f"the {parameters:,} weights take {size(need)} in {dtype}"
    return ModelError(
        f"model: memory ran out while {doing} on {device}: {weights}, and {there.owner} has {size(there.bytes)} "
        f"({_said(error)}). {_remedy(dtype, need, there)}"
    )


def _remedy(dtype: str, need: int | None, device: Device) -> str:
    """What to do.

    Args:
        dtype: of most weights.
        need: bytes of the weights; None if not known.
        device: that has not enough.
    """
    half = "" if need is None else f" ({size(2 * need / WIDTHS.get(dtype, 4))})"
    narrower = f"training.dtype: bfloat16 or float16{half}, " if WIDTHS.get(dtype, 4) > 2 else ""
    if need is not None and need < FAR_BELOW * device.bytes:
        return (
            "The weights take far less than that, so end other programs that use its memory. Otherwise use "
            f"{narrower}{'or ' if narrower else ''}another device (training.device)."
        )
    return (
        f"Use {narrower}a smaller model, or another device (training.device), and end other programs that use its "
        "memory."
    )


def _said(error: BaseException) -> str:
    cause = next((each for each in _chain(error) if _is_out_of_memory(each)), error)
    return first_line(cause)[:200].rstrip(".")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)


def _is_out_of_memory(error: BaseException) -> bool:
    import torch
    from accelerate.utils.memory import should_reduce_batch_size

    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM  # a file cannot be mapped
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or bool(should_reduce_batch_size(error))
