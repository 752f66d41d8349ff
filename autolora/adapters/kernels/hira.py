"""HiRA's forward pass."""

from __future__ import annotations

from typing import Any

from peft import HiraConfig
from peft.tuners.hira import HiraModel
from peft.tuners.hira.layer import Linear
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from autolora.adapters.kernels.branch import acts_alone
from autolora.adapters.kernels.hadamard import hadamard_linear, is_plain


class LeanHira(Linear):
    """``y = (W o (1 + B A)) x``: PEFT's layer and its values, in one large multiplication instead of two."""

    def __init__(self, base_layer: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(base_layer, adapter_name, *args, **kwargs)
        self.lean_adapter = adapter_name

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        adapter = self.lean_adapter
        dropped = self.training and not isinstance(self.hira_dropout[adapter], nn.Identity)  # of the update's input
        if dropped or not acts_alone(self, adapter):
            return super().forward(x, *args, **kwargs)
        return hadamard_linear(self.get_base_layer(), x, self.hira_A[adapter], self.hira_B[adapter])


class LeanHiraModel(HiraModel):
    """PEFT's HiRA, with the lean layer wherever the base layer does nothing but multiply by its weight."""

    @staticmethod
    def _create_new_module(
        hira_config: HiraConfig, adapter_name: str, target: nn.Module, **kwargs: object
    ) -> nn.Module:
        if not is_plain(target):  # PEFT knows how to undo a quantization
            own: nn.Module = HiraModel._create_new_module(hira_config, adapter_name, target, **kwargs)
            return own
        transposed = isinstance(target, Conv1D)
        return LeanHira(
            target,
            adapter_name,
            config=hira_config,
            r=hira_config.r,
            fan_in_fan_out=transposed,
            is_target_conv_1d_layer=transposed,
        )
