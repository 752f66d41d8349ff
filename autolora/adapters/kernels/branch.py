"""What stands in place of ``B A x`` on a layer to which PEFT has given A and B."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from peft.tuners.lora.layer import Linear, LoraLayer, LoraVariant
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from autolora.adapters.errors import VariantError
from autolora.adapters.layer import AdaptedLayer, PeftLayer


class Unmerged(LoraVariant):
    """A forward pass that PEFT does not know and so cannot merge: left to its defaults it would drop the adapter.

    Attributes:
        takes_half: under autocast to 16 bits it takes an input of 16 bits as it is, see :func:`take_half`. By default
            it is given float32.
    """

    takes_half = False

    @staticmethod
    def merge_safe(module: LoraLayer, active_adapter: str, orig_weight: Tensor) -> Tensor:
        raise VariantError(
            "this adapter cannot be merged as it was trained: export it, and merge what plain PEFT loads of it"
        )

    @staticmethod
    def merge_unsafe(module: LoraLayer, active_adapter: str, orig_weight: Tensor) -> None:
        Unmerged.merge_safe(module, active_adapter, orig_weight)

    def supports_lora_conversion(self) -> bool:
        return False


class Branch(Unmerged):
    """``y = W x + s f(x)``: subclasses say what f is; dropout is on its input, as PEFT has it for LoRA.

    Put on a layer with :meth:`AdaptedLayer.install`. Parameters beyond A and B are the layer's, see
    :meth:`AdaptedLayer.give`.
    """

    def update(self, layer: AdaptedLayer, x: Tensor) -> Tensor:
        """f(x), (..., m), for x (..., n), by the layer's adapter."""
        raise NotImplementedError

    # PEFT's is static, but called on the instance.
    def forward(  # type: ignore[override]
        self, module: PeftLayer, active_adapter: str, x: Tensor, result: Tensor, **kwargs: object
    ) -> Tensor:
        x = module.lora_dropout[active_adapter](x)
        return result + self.update(AdaptedLayer(module, active_adapter), x) * module.scaling[active_adapter]


def take_half(layers: Iterable[AdaptedLayer]) -> None:
    """Let layers take inputs of 16 bits as they come, for a model that runs under autocast alone.

    PEFT widens the input to the float32 of the adapter, and autocast rounds it to 16 bits again: the same numbers after
    two copies of it in the forward pass, and two of its gradient in the backward pass. Where there is dropout it is
    drawn in float32, as before, and a forward pass that does not say that it :attr:`Unmerged.takes_half` gets float32.
    """
    for layer in layers:
        if not isinstance(layer.module, Linear):
            continue
        ready = layer.branch is None or getattr(layer.branch, "takes_half", False)
        if ready and isinstance(layer.module.lora_dropout[layer.adapter], nn.Identity):
            layer.module.cast_input_dtype_enabled = False


@contextmanager
def widening(model: nn.Module) -> Iterator[None]:
    """Context in which inputs of 16 bits are widened again, as PEFT's layers do: for callers without autocast."""
    narrow = [
        module for module in model.modules() if isinstance(module, Linear) and not module.cast_input_dtype_enabled
    ]
    for module in narrow:
        module.cast_input_dtype_enabled = True
    try:
        yield
    finally:
        for module in narrow:
            module.cast_input_dtype_enabled = False


def acts_alone(layer: BaseTunerLayer, adapter: str) -> bool:
    """Whether a layer of PEFT's does what it was attached for: no other adapter, none merged or switched off."""
    return layer.active_adapters == [adapter] and not (layer.disable_adapters or layer.merged)
