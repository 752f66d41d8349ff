"""Memory that runs out while a base is loaded or used: what to say, and what to do about it."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolora.adapters.memory import Device, size
from autolora.adapters.packed import parameter_count
from autolora.bases.capacity import capacity
from autolora.bases.device import dtype_name
from autolora.bases.errors import ModelError
from autolora.bases.packed import held_bytes
from autolora.errors import first_line

if TYPE_CHECKING:
    import torch
    from torch import nn

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
    with contextlib.suppress(OSError, AttributeError):  # glibc alone keeps what was freed, and has such a call
        ctypes.CDLL(None).malloc_trim(0)


@dataclass(frozen=True)
class Weights:
    """What the weights of a model take.

    Attributes:
        dtype: of most of those in numbers, such as "float32".
        bits: of the packed linear layers: 4 or 8, or None if none is packed.
        parameters: of the model; None if that is not known.
        bytes: of its weights; None if not known.
    """

    dtype: str
    bits: int | None = None
    parameters: int | None = None
    bytes: int | None = None

    @classmethod
    def of(cls, model: nn.Module, dtype: torch.dtype, bits: int | None) -> Weights:
        """Those of a model, which may be on the device "meta" and not packed yet."""
        return cls(dtype_name(dtype), bits, parameter_count(model), held_bytes(model, dtype, bits))

    @property
    def width(self) -> int:
        """Bytes of a weight in numbers."""
        return WIDTHS.get(self.dtype, 4)

    def __str__(self) -> str:
        if self.bytes is None:
            return "how much the weights take is not known"
        held = f"{self.bits} bits and {self.dtype}" if self.bits else self.dtype
        return f"the {self.parameters:,} weights take {size(self.bytes)} in {held}"


def exceeded(doing: str, device: torch.device, weights: Weights, error: BaseException) -> ModelError:
    """The answer to memory that ran out.

    Args:
        doing: what was done, as in "loading the model".
        device: it was done for.
        weights: of the model.
        error: what was raised.
    """
    there = capacity(device)
    return ModelError(
        f"model: memory ran out while {doing} on {device}: {weights}, and {there.owner} has {size(there.bytes)} "
        f"({_said(error)}). {_remedy(weights, there)}"
    )


def _remedy(weights: Weights, device: Device) -> str:
    """What to do.

    Args:
        weights: of the model.
        device: that has not enough.
    """
    need, narrower = weights.bytes, ""
    if weights.width > 2:
        half = "" if need is None or weights.bits else f" ({size(2 * need / weights.width)})"
        narrower = f"training.dtype: bfloat16 or float16{half}, "
    if weights.bits is None:
        narrower += "base.load_in_4bit: true, "
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
