"""MoSLoRA's forward pass."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import linear

from autolora.adapters.kernels.branch import Branch
from autolora.adapters.layer import AdaptedLayer


class Mixed(Branch):
    """B M A x."""

    takes_half = True

    def update(self, layer: AdaptedLayer, x: Tensor) -> Tensor:
        return layer.times_b(linear(layer.times_a(x), layer.given("mixer")))
