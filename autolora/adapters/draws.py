"""Random numbers of an adapter's start: one stream for each purpose, the same on every device."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FACTOR_A = "lora_A"
"""PEFT's name of A, and the purpose of the randomness that it starts from."""


def random_stream(seed: int, purpose: str) -> torch.Generator:
    """A CPU generator of its own for one purpose, the same on every device."""
    import torch

    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def draw_kaiming(a: Tensor, generator: torch.Generator) -> None:
    """Overwrite A (r, n): Kaiming-uniform, bound 1/sqrt(n), drawn in float32 on the CPU."""
    import torch

    bound = a.shape[1] ** -0.5
    a.data.copy_(torch.empty(a.shape).uniform_(-bound, bound, generator=generator))
