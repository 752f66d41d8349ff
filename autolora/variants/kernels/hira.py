"""HiRA's forward pass."""

from __future__ import annotations

from typing import Any

from peft.tuners.hira.layer import Linear
from torch import Tensor, nn

from autolora.variants.kernels.branch import acts_alone
from autolora.variants.kernels.hadamard import hadamard_linear
from autolora.variants.subtraction import ADAPTER


class LeanHira(Linear):
    """``y = (W o (1 + B A)) x``: PEFT's layer and its values, in one large multiplication instead of two."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        dropped = self.training and not isinstance(self.hira_dropout[ADAPTER], nn.Identity)  # of the update's input
        if dropped or not acts_alone(self):
            return super().forward(x, *args, **kwargs)
        return hadamard_linear(self.get_base_layer(), x, self.hira_A[ADAPTER], self.hira_B[ADAPTER])
