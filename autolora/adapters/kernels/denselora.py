"""DenseLoRA's forward pass."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import gelu, linear

from autolora.adapters.kernels.branch import Branch
from autolora.adapters.layer import AdaptedLayer


class Dense(Branch):
    """gelu(B M gelu(A x))."""

    takes_half = True

    def update(self, layer: AdaptedLayer, x: Tensor) -> Tensor:
        encoded = gelu(layer.times_a(x))
        return gelu(layer.times_b(linear(encoded, layer.given("mixer"))))
