"""LoHa's forward pass."""

from __future__ import annotations

from typing import Any

from peft.tuners.loha import LoHaConfig, LoHaModel
from peft.tuners.loha.layer import Linear, LoHaLayer
from peft.tuners.lycoris_utils import LycorisLayer
from torch import Tensor, nn

from autolora.adapters.kernels.branch import acts_alone
from autolora.adapters.kernels.hadamard import hadamard_linear, is_plain


class LeanLoha(Linear):
    """``y = (W + s (B1 A1) o (B2 A2)) x``: PEFT's layer and its values, in one large multiplication instead of two."""

    def __init__(self, base_layer: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(base_layer, adapter_name, *args, **kwargs)
        self.lean_adapter = adapter_name

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        adapter = self.lean_adapter
        if not acts_alone(self, adapter):
            return super().forward(x, *args, **kwargs)
        return hadamard_linear(
            self.get_base_layer(),
            x,
            self.hada_w2_b[adapter],
            self.hada_w2_a[adapter],
            scaling=self.scaling[adapter],
            other=(self.hada_w1_b[adapter], self.hada_w1_a[adapter]),
        )


class LeanLohaModel(LoHaModel):
    """PEFT's LoHa, with the lean layer wherever the base layer does nothing but multiply by its weight."""

    # Declared as PEFT does: no ClassVar.
    layers_mapping: dict[type[nn.Module], type[LoHaLayer]] = {**LoHaModel.layers_mapping, nn.Linear: LeanLoha}  # noqa: RUF012

    @classmethod
    def _create_new_module(
        cls, config: LoHaConfig, adapter_name: str, target: nn.Module, **kwargs: object
    ) -> LycorisLayer:
        if not is_plain(target):  # PEFT's own layer knows how to undo a quantization
            return LoHaModel._create_new_module(config, adapter_name, target, **kwargs)
        return super()._create_new_module(config, adapter_name, target, **kwargs)
