"""LoHa's forward pass."""

from __future__ import annotations

from typing import Any

from peft.tuners.loha.layer import Linear
from torch import Tensor

from autolora.variants.kernels.branch import acts_alone
from autolora.variants.kernels.hadamard import hadamard_linear
from autolora.variants.subtraction import ADAPTER


class LeanLoha(Linear):
    """``y = (W + s (B1 A1) o (B2 A2)) x``: PEFT's layer and its values, in one large multiplication instead of two."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not acts_alone(self):
            return super().forward(x, *args, **kwargs)
        return hadamard_linear(
            self.get_base_layer(),
            x,
            self.hada_w2_b[ADAPTER],
            self.hada_w2_a[ADAPTER],
            self.scaling[ADAPTER],
            (self.hada_w1_b[ADAPTER], self.hada_w1_a[ADAPTER]),
        )
