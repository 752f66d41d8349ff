"""W <- W - s B0 A0, for variants whose factors do not start at B A = 0, and the exact way back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolora.adapters.errors import VariantError
from autolora.adapters.layer import stored_weight

if TYPE_CHECKING:
    from torch import Tensor, nn

    from autolora.adapters.layer import AdaptedLayer


@dataclass
class Subtracted:
    """What stands behind one subtracted layer.

    Attributes:
        original: the base's own parameter, untouched; off the accelerator where no other module uses it.
        a0, b0: the anchors, (k, n) and (m, k), float32, on the CPU; k = r where the factors start at them.
    """

    original: nn.Parameter
    a0: Tensor
    b0: Tensor


def weight_matrix(module: nn.Module) -> Tensor:
    """W of a linear layer as (m, n) float32, whichever way the module stores it."""
    weight = stored_weight(module)
    _check_unquantized(weight)
    return _oriented(weight.detach().float(), module)


def subtract(layer: AdaptedLayer, a0: Tensor, b0: Tensor, shared: bool) -> Subtracted:
    """Put W - s B0 A0 in place of the layer's weight.

    The layer gets a parameter of its own, so a weight tied to another module changes here and nowhere else.

    Args:
        a0, b0: the anchors, (k, n) and (m, k).
        shared: another module uses the same parameter, which then stays where it is.
    """
    original = stored_weight(layer.base_layer)
    _check_unquantized(original)
    kept = Subtracted(original, _anchor(a0), _anchor(b0))
    put_residual(layer, kept)
    if not shared:
        original.data = original.data.cpu()
    return kept


def put_residual(layer: AdaptedLayer, kept: Subtracted) -> None:
    """Make the layer's weight W - s B0 A0, from the original and the anchors as kept."""
    from torch import nn

    device = layer.base_layer.weight.device
    weight = kept.original.detach().to(device).float()
    low_rank = layer.scaling * (kept.b0.to(device) @ kept.a0.to(device))
    residual = (weight - _oriented(low_rank, layer.base_layer)).to(kept.original.dtype)
    layer.base_layer.weight = nn.Parameter(residual.contiguous(), requires_grad=False)


def restore(layer: AdaptedLayer, kept: Subtracted) -> None:
    """Give the layer its original parameter back: the same object with the same bits."""
    kept.original.data = kept.original.data.to(layer.base_layer.weight.device)
    layer.base_layer.weight = kept.original


def _check_unquantized(weight: Tensor) -> None:
    if not weight.is_floating_point():
        raise VariantError(f"the base is quantized to {weight.dtype}: a start from its weights needs it unquantized")


def _anchor(factor: Tensor) -> Tensor:
    import torch

    return factor.detach().to("cpu", torch.float32, copy=True).contiguous()


def _oriented(matrix: Tensor, module: nn.Module) -> Tensor:
    """Between (m, n) and the way the module stores it, in both directions."""
    from transformers.pytorch_utils import Conv1D

    return matrix.T if isinstance(module, Conv1D) else matrix
