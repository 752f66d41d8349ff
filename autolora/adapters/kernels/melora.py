"""MELoRA's forward pass."""

from __future__ import annotations

import torch
from torch import Tensor, einsum

from autolora.adapters.kernels.branch import Branch
from autolora.adapters.layer import AdaptedLayer


class BlockDiagonal(Branch):
    """B_i A_i x_i side by side, for the k parts x_i of x: A_i is columns of A (r, n), B_i rows of B (m, r)."""

    takes_half = True

    def __init__(self, k: int) -> None:
        self.k = k

    def update(self, layer: AdaptedLayer, x: Tensor) -> Tensor:
        a = torch.unflatten(layer.a, 1, (self.k, -1))
        b = torch.unflatten(layer.b, 0, (self.k, -1))
        hidden = einsum("...ki,rki->...kr", torch.unflatten(x, -1, (self.k, -1)), a)
        return einsum("...kr,kor->...ko", hidden, b).flatten(-2)
