"""``y = (W + s P o B A) x``: an update as large as W itself, of which nothing is kept for the backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers.pytorch_utils import Conv1D

from autolora.adapters.layer import stored_weight


def is_plain(layer: nn.Module) -> bool:
    """Whether a base layer holds its W as numbers and does nothing but multiply by it."""
    return type(layer) in (nn.Linear, Conv1D) and stored_weight(layer).is_floating_point()


def hadamard_linear(
    layer: nn.Module, x: Tensor, a: Tensor, b: Tensor, scaling: float = 1.0, other: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """The layer's output with s P o B A added to its weight, and its bias.

    Args:
        layer: for which :func:`is_plain` holds, frozen.
        x: (..., n).
        a, b: (r, n) and (m, r).
        scaling: s.
        other: A1 and B1 of P = B1 A1; None: P is W.
    """
    device = x.device.type
    if torch.is_autocast_enabled(device):
        x = x.to(torch.get_autocast_dtype(device))
    weight = stored_weight(layer).T if isinstance(layer, Conv1D) else stored_weight(layer)
    factors = (a, b, *(other or (None, None)))
    with torch.autocast(device, enabled=False):
        y: Tensor = _HadamardLinear.apply(  # type: ignore[no-untyped-call]
            x.flatten(0, -2), weight, layer.bias, scaling, *factors
        )
    # Here and not in the function: autograd lets no model add in place to a view that is made there.
    return torch.unflatten(y, 0, x.shape[:-1])


class _HadamardLinear(torch.autograd.Function):
    """For x (tokens, n). Of what is not there before, x and the factors are kept; the update is made again in the
    backward pass.

    In half precision, where small updates of W round to nothing, W and the update are multiplied by x in turn.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        scaling: float,
        a: Tensor,
        b: Tensor,
        other_a: Tensor | None,
        other_b: Tensor | None,
    ) -> Tensor:
        ctx.scaling = scaling
        ctx.save_for_backward(x, weight, a, b, other_a, other_b)
        bias = None if bias is None else bias.to(x.dtype)
        product, partner = _operands(weight, a, b, other_a, other_b)
        if x.dtype.itemsize >= product.dtype.itemsize:
            y = linear(x, _sum(weight, partner, product, scaling), bias)
        else:
            y = linear(x, weight.to(x.dtype), bias)
            y.addmm_(x, product.mul_(partner).mul_(scaling).to(x.dtype).T)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, a, b, other_a, other_b = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            product, partner = _operands(weight, a, b, other_a, other_b)
            along_weight = _product(gradient.T, x, weight).to(product.dtype)
            along_other_a = along_other_b = along_x = None
            if other_a is not None:
                along_partner = along_weight * product
                along_other_a = ctx.scaling * (other_b.T @ along_partner)
                along_other_b = ctx.scaling * (along_partner @ other_a.T)
            # Unless it will be differentiated itself, a large product takes the place of one that is done with.
            in_place = not torch.is_grad_enabled()
            along_product = along_weight.mul_(partner) if in_place else along_weight * partner
            along_a = ctx.scaling * (b.T @ along_product)
            along_b = ctx.scaling * (along_product @ a.T)
            if ctx.needs_input_grad[0]:
                out = product if in_place else None
                total = torch.addcmul(weight, partner, product, value=ctx.scaling, out=out)
                along_x = gradient @ total.to(gradient.dtype)
        return along_x, None, None, None, along_a, along_b, along_other_a, along_other_b


def _operands(
    weight: Tensor, a: Tensor, b: Tensor, other_a: Tensor | None, other_b: Tensor | None
) -> tuple[Tensor, Tensor]:
    """B A, which is the caller's to write to, and P."""
    if other_a is None or other_b is None:
        return _product(b, a, weight), weight
    return _product(b, a, weight), _product(other_b, other_a, weight)


def _product(left: Tensor, right: Tensor, like: Tensor) -> Tensor:
    """left @ right, laid out in memory as another matrix: elementwise work on both is then fast."""
    return left @ right if like.is_contiguous() else (right.T @ left.T).T


def _sum(weight: Tensor, partner: Tensor, product: Tensor, scaling: float) -> Tensor:
    """W + s P o Q, in Q's place."""
    return torch.addcmul(weight, partner, product, value=scaling, out=product)
