"""RaSA's forward pass."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from autolora.adapters.kernels.branch import Branch
from autolora.adapters.layer import AdaptedLayer


def pooled_factors(layer: AdaptedLayer) -> tuple[Tensor, Tensor]:
    """D [A_i; A_S], (r - k + k L, n), and [B_i B_S], (m, r - k + k L)."""
    a = torch.cat([layer.a, layer.given("pool_A")])
    b = torch.cat([layer.b, layer.given("pool_B")], dim=1)
    return layer.given("diagonal").unsqueeze(1) * a, b


class Pooled(Branch):
    """[B_i B_S] D [A_i; A_S] x."""

    takes_half = True

    def update(self, layer: AdaptedLayer, x: Tensor) -> Tensor:
        a, b = pooled_factors(layer)
        return linear(linear(x, a), b)
