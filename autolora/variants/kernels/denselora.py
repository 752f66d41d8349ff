"""DenseLoRA's forward pass."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.functional import gelu, linear

from autolora.variants.kernels.branch import Branch
from autolora.variants.subtraction import ADAPTER


class Dense(Branch):
    """gelu(B M gelu(A x))."""

    def update(self, layer: Any, x: Tensor) -> Tensor:
        encoded = gelu(layer.lora_A[ADAPTER](x))
        return gelu(layer.lora_B[ADAPTER](linear(encoded, layer.mixer)))
