"""The device and the dtype of a base."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autolora.bases.errors import ModelError

if TYPE_CHECKING:
    import torch


def find_device(name: str) -> torch.device:
    """The device named, or the best there is: cuda, then mps, then cpu."""
    import torch

    if name != "auto":
        device = torch.device(name)
        if device.type == "cuda" and not torch.cuda.is_available():
            raise ModelError(f"training.device is {name!r}, but this machine shows no CUDA device; use 'auto' or 'cpu'")
        return device
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def find_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype named, or bfloat16 on a GPU that has it and float32 elsewhere."""
    import torch

    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
    has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if has_bfloat16 else torch.float32
