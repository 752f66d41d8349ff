"""LoKr's forward pass."""

from __future__ import annotations

from typing import Any

from peft.tuners.lokr.layer import Linear
from torch import Tensor
from torch.nn.functional import linear

from autolora.variants.kernels.branch import acts_alone
from autolora.variants.subtraction import ADAPTER


class LeanLokr(Linear):
    """``y = W x + s (W1 (x) W2) x``: PEFT's layer and its values, without the Kronecker product.

    With x as a matrix X of as many rows as W1 has columns, (W1 (x) W2) x is W1 X W2^T.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not acts_alone(self):
            return super().forward(x, *args, **kwargs)
        result = self.base_layer(x, *args, **kwargs)
        w1 = self.lokr_w1[ADAPTER]
        rows = x.to(w1.dtype).unflatten(-1, (w1.shape[1], -1))
        whole = ADAPTER in self.lokr_w2
        inner = linear(rows, self.lokr_w2[ADAPTER] if whole else self.lokr_w2_b[ADAPTER])
        mixed = (self.scaling[ADAPTER] * w1) @ inner
        update = mixed if whole else linear(mixed, self.lokr_w2_a[ADAPTER])
        return (result + update.flatten(-2)).to(result.dtype)
