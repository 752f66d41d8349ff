"""MoSLoRA's forward pass."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.functional import linear

from autolora.variants.kernels.branch import Branch
from autolora.variants.subtraction import ADAPTER


class Mixed(Branch):
    """B M A x."""

    def update(self, layer: Any, x: Tensor) -> Tensor:
        return layer.lora_B[ADAPTER](linear(layer.lora_A[ADAPTER](x), layer.mixer))
