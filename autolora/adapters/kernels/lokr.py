"""LoKr's forward pass."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lokr import LoKrModel
from peft.tuners.lokr.layer import Linear, LoKrLayer
from torch import Tensor, nn
from torch.nn.functional import linear

from autolora.adapters.kernels.branch import acts_alone


class LeanLokr(Linear):
    """``y = W x + s (W1 (x) W2) x``: PEFT's layer and its values, without the Kronecker product.

    With x as a matrix X of as many rows as W1 has columns, (W1 (x) W2) x is W1 X W2^T.
    """

    def __init__(self, base_layer: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(base_layer, adapter_name, *args, **kwargs)
        self.lean_adapter = adapter_name

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        adapter = self.lean_adapter
        if not acts_alone(self, adapter):
            return super().forward(x, *args, **kwargs)
        result: Tensor = self.base_layer(x, *args, **kwargs)
        w1 = self.lokr_w1[adapter]
        rows = torch.unflatten(x.to(w1.dtype), -1, (w1.shape[1], -1))
        whole = adapter in self.lokr_w2
        inner = linear(rows, self.lokr_w2[adapter] if whole else self.lokr_w2_b[adapter])
        mixed: Tensor = (self.scaling[adapter] * w1) @ inner
        update = mixed if whole else linear(mixed, self.lokr_w2_a[adapter])
        return (result + update.flatten(-2)).to(result.dtype)


class LeanLokrModel(LoKrModel):
    """PEFT's LoKr, with the lean layer in place of its own."""

    # Declared as PEFT does: no ClassVar.
    layers_mapping: dict[type[nn.Module], type[LoKrLayer]] = {**LoKrModel.layers_mapping, nn.Linear: LeanLokr}  # noqa: RUF012
