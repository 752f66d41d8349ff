"""What stands in place of ``B A x`` on a layer to which PEFT has given A and B."""

from __future__ import annotations

from typing import Any

from peft.tuners.lora.layer import LoraVariant
from torch import Tensor, nn

from autolora.variants.subtraction import ADAPTER


class Branch(LoraVariant):
    """``y = W x + s f(x)``: subclasses say what f is; dropout is on its input, as PEFT has it for LoRA.

    Put on a layer as ``layer.lora_variant[ADAPTER]``. Parameters beyond A and B are the layer's, see :func:`give`.
    """

    def update(self, layer: Any, x: Tensor) -> Tensor:
        """f(x), (..., m), for x (..., n), by the layer's adapter."""
        raise NotImplementedError

    def forward(self, module: Any, active_adapter: str, x: Tensor, result: Tensor, **kwargs: Any) -> Tensor:
        x = module.lora_dropout[active_adapter](x)
        return result + self.update(module, x) * module.scaling[active_adapter]


def give(layer: Any, name: str, value: Tensor) -> nn.Parameter:
    """Add a trainable parameter to a layer's adapter, in float32 where A is, and return it."""
    parameter = nn.Parameter(value.float().to(layer.lora_A[ADAPTER].weight.device))
    layer.register_parameter(name, parameter)
    return parameter
