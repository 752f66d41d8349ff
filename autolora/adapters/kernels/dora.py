"""DoRA's forward pass without a matrix of W's size: PEFT's values and gradients, in less time and memory."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora.variants import DoraLinearVariant
from torch import Tensor

from autolora.adapters.layer import AdaptedLayer, PeftLayer
from autolora.adapters.packed import bits_of, unpacked
from autolora.adapters.subtraction import weight_matrix


class GramDora(DoraLinearVariant):
    """``y = c o (W x + s B A x)``, ``c = mag / norm``, norms by row of W + s B A and detached, as the paper advises.

    PEFT forms B A from an identity of n x n, adds W, and keeps two results a layer for the backward pass. Here

        |w_i + s b_i A|^2 = |w_i|^2 + 2 s b_i (A w_i^T) + s^2 b_i (A A^T) b_i^T,

    and what is kept is y itself, which the next layer often keeps anyway.

    Args:
        layer: freshly injected, whose base weight stays as it is.
        overwritten: the model adds to the layer's output in place.

    Attributes:
        squares: |w_i|^2, (m,), float32.
        keeps_sum: W x + s B A x is kept instead of y: any of the squares is 0, or y is overwritten.
    """

    def __init__(self, layer: AdaptedLayer, overwritten: bool = False) -> None:
        self.squares = weight_matrix(layer.base_layer).square().sum(1)
        # The weights of a model's outline have no values, and are taken to be usual ones.
        self.keeps_sum = overwritten or (not self.squares.is_meta and bool((self.squares == 0).any()))

    # PEFT's is static, but called on the instance.
    def forward(  # type: ignore[override]
        self, module: PeftLayer, active_adapter: str, x: Tensor, result: Tensor, **kwargs: object
    ) -> Tensor:
        if module.training and not isinstance(module.lora_dropout[active_adapter], torch.nn.Identity):
            return DoraLinearVariant.forward(module, active_adapter, x, result, **kwargs)  # type: ignore[arg-type]
        lora_a, lora_b = module.lora_A[active_adapter], module.lora_B[active_adapter]
        scaling, bias = module.scaling[active_adapter], module.get_base_layer().bias
        scale = module.lora_magnitude_vector[active_adapter].weight / self._norms(module, active_adapter)
        plain = result if bias is None else result - bias
        scaled: Tensor = _Scaled.apply(  # type: ignore[no-untyped-call]
            plain + scaling * lora_b(lora_a(x)), scale, self.keeps_sum
        )
        return scaled if bias is None else scaled + bias

    @torch.no_grad()
    def _norms(self, module: PeftLayer, adapter: str) -> Tensor:
        a, b = module.lora_A[adapter].weight, module.lora_B[adapter].weight
        s = module.scaling[adapter]
        base = module.get_base_layer()
        weight = unpacked(base) if bits_of(base) else base.weight
        crossed = weight.T @ a.T.to(weight.dtype) if module.fan_in_fan_out else weight @ a.T.to(weight.dtype)
        squares = self.squares + s * (b * (2 * crossed.float() + s * (b @ (a @ a.T)))).sum(1)
        return squares.clamp_(min=0).sqrt_()


class _Scaled(torch.autograd.Function):
    """v o c, with v (..., m) and c (m,), which keeps the product and not v.

    Where c is 0, as at the start of a row of norm 0, v cannot be read off the product, nor where the model overwrites
    that: then v is kept.
    """

    @staticmethod
    def forward(ctx: Any, v: Tensor, c: Tensor, keep_v: bool) -> Tensor:
        y = (v * c).to(v.dtype)
        ctx.kept_v = keep_v
        ctx.save_for_backward(v if keep_v else y, c)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        kept, c = ctx.saved_tensors
        along_c = (gradient * kept).flatten(0, -2).sum(0, dtype=c.dtype)
        if not ctx.kept_v:
            along_c = torch.where(c == 0, 0.0, along_c / c)  # a magnitude that training took to 0, of all numbers
        return (gradient * c).to(gradient.dtype), along_c, None
