"""RaSA's forward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from autolora.variants.kernels.branch import Branch
from autolora.variants.subtraction import ADAPTER


def pooled_factors(layer: Any) -> tuple[Tensor, Tensor]:
    """D [A_i; A_S], (r - k + k L, n), and [B_i B_S], (m, r - k + k L)."""
    a = torch.cat([layer.lora_A[ADAPTER].weight, layer.pool_A])
    b = torch.cat([layer.lora_B[ADAPTER].weight, layer.pool_B], dim=1)
    return layer.diagonal.unsqueeze(1) * a, b


class Pooled(Branch):
    """[B_i B_S] D [A_i; A_S] x."""

    def update(self, layer: Any, x: Tensor) -> Tensor:
        a, b = pooled_factors(layer)
        return linear(linear(x, a), b)
