"""GraLoRA's forward pass, for inputs of any shape."""

from __future__ import annotations

from typing import Any

import torch
from peft import GraloraConfig
from peft.tuners.gralora import GraloraModel
from peft.tuners.gralora.layer import Linear
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


class AnyShapeGralora(Linear):
    """PEFT's layer takes (batch, seq, n) and (tokens, n); latent attention calls some with (batch, 1, seq, n)."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # type: ignore[override]
        if x.ndim <= 3:
            result: Tensor = super().forward(x, *args, **kwargs)
            return result
        return torch.unflatten(super().forward(x.flatten(0, -3), *args, **kwargs), 0, x.shape[:-2])


class AnyShapeGraloraModel(GraloraModel):
    """PEFT's GraLoRA with these layers."""

    @staticmethod
    def _create_new_module(
        gralora_config: GraloraConfig, adapter_name: str, target: nn.Module, module_name: str, **kwargs: Any
    ) -> nn.Module:
        if isinstance(target, Conv1D):
            own: nn.Module = GraloraModel._create_new_module(  # type: ignore[no-untyped-call]
                gralora_config, adapter_name, target, module_name, **kwargs
            )
            return own
        return AnyShapeGralora(target, adapter_name, module_name, config=gralora_config, **kwargs)
