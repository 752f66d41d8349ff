"""W <- W - s B0 A0, for variants whose factors do not start at B A = 0, and the exact way back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autolora.adapters.errors import VariantError
from autolora.adapters.layer import stored_weight
from autolora.adapters.packed import bits_of, unpacked

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.hooks import RemovableHandle

    from autolora.adapters.layer import AdaptedLayer


@dataclass
class Subtracted(ABC):
    """What stands behind one subtracted layer.

    Attributes:
        a0, b0: the anchors, (k, n) and (m, k), float32, on the CPU; k = r where the factors start at them.
    """

    a0: Tensor
    b0: Tensor

    @abstractmethod
    def put(self, layer: AdaptedLayer) -> None:
        """Make the layer compute (W - s B0 A0) x, from the anchors as they are now."""

    @abstractmethod
    def restore(self, layer: AdaptedLayer) -> None:
        """Make the layer compute W x again, with the same parameter of the same bits."""


@dataclass
class Replaced(Subtracted):
    """The layer holds W - s B0 A0 in place of W.

    Attributes:
        original: the base's own parameter, untouched; off the accelerator where no other module uses it.
    """

    original: nn.Parameter

    def put(self, layer: AdaptedLayer) -> None:
        from torch import nn

        device = layer.base_layer.weight.device
        weight = self.original.detach().to(device).float()
        low_rank = layer.scaling * (self.b0.to(device) @ self.a0.to(device))
        residual = (weight - _oriented(low_rank, layer.base_layer)).to(self.original.dtype)
        layer.base_layer.weight = nn.Parameter(residual.contiguous(), requires_grad=False)

    def restore(self, layer: AdaptedLayer) -> None:
        self.original.data = self.original.data.to(layer.base_layer.weight.device)
        layer.base_layer.weight = self.original


@dataclass
class Beside(Subtracted):
    """W in 4 or 8 bits stays as it is, and s B0 A0 x is subtracted from W x.

    Putting W - s B0 A0 in few bits would round it to another base, in which the error of rounding W is a different
    one. This way nothing is rounded: the outputs at the start are the base's, and the exported adapter fits the base.
    """

    hook: RemovableHandle | None = None

    def put(self, layer: AdaptedLayer) -> None:
        self.restore(layer)
        device = layer.base_layer.weight.device
        minus = _Minus(self.a0.to(device), self.b0.to(device), layer.scaling)
        self.hook = layer.base_layer.register_forward_hook(minus)

    def restore(self, layer: AdaptedLayer) -> None:
        if self.hook is not None:
            self.hook.remove()
            self.hook = None


@dataclass
class _Minus:
    """A hook of a layer that subtracts s B0 A0 x from its output."""

    a0: Tensor
    b0: Tensor
    scaling: float

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        import torch
        from torch.nn.functional import linear

        x = inputs[0]
        if not torch.is_autocast_enabled(x.device.type):
            x = x.to(self.a0.dtype)
        return output - (self.scaling * linear(linear(x, self.a0), self.b0)).to(output.dtype)


def weight_matrix(module: nn.Module) -> Tensor:
    """W of a linear layer as (m, n) float32, whichever way the module stores it."""
    if bits_of(module):
        return unpacked(module).float()
    weight = stored_weight(module)
    _check_unquantized(weight)
    return _oriented(weight.detach().float(), module)


def subtract(layer: AdaptedLayer, a0: Tensor, b0: Tensor, shared: bool) -> Subtracted:
    """Subtract s B0 A0 from what the layer computes, and from no other module's.

    The layer gets a parameter of its own, so a weight tied to another module changes here and nowhere else; a layer in
    few bits keeps its parameter.

    Args:
        a0, b0: the anchors, (k, n) and (m, k).
        shared: another module uses the same parameter, which then stays where it is.
    """
    kept: Subtracted
    if bits_of(layer.base_layer):
        kept = Beside(_anchor(a0), _anchor(b0))
        kept.put(layer)
        return kept
    original = stored_weight(layer.base_layer)
    _check_unquantized(original)
    kept = Replaced(_anchor(a0), _anchor(b0), original)
    kept.put(layer)
    if not shared:
        original.data = original.data.cpu()
    return kept


def _check_unquantized(weight: Tensor) -> None:
    if not weight.is_floating_point():
        raise VariantError(
            f"the base holds weights in {weight.dtype}, which autolora cannot read: give one in 4 or 8 bits of "
            "bitsandbytes, or an unquantized one"
        )


def _anchor(factor: Tensor) -> Tensor:
    import torch

    return factor.detach().to("cpu", torch.float32, copy=True).contiguous()


def _oriented(matrix: Tensor, module: nn.Module) -> Tensor:
    """Between (m, n) and the way the module stores it, in both directions."""
    from transformers.pytorch_utils import Conv1D

    return matrix.T if isinstance(module, Conv1D) else matrix
