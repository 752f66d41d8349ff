"""LoFT (arXiv 2505.21289): plain LoRA, trained by what Adam would do to the full weights, projected on the factors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolora.adapters.attachment import attachment
from autolora.adapters.errors import VariantError
from autolora.space import Traits
from autolora.variants.base import Variant
from autolora.variants.registry import register

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from torch import Tensor


@dataclass(frozen=True)
class Loft(Variant):
    """An optimizer of W = W0 + B A: see :class:`autolora.adapters.kernels.loft.LoftAdamW`.

    Its state has about r/2 numbers for each of a factor's, where Adam's has 2.

    Attributes:
        eps: of Adam's step; the paper's value.
    """

    eps: float = 1e-4

    def optimizer(self, model: PeftModel, learning_rate: float, weight_decay: float = 0.0) -> torch.optim.Optimizer:
        from autolora.adapters.kernels.loft import LoftAdamW

        layers = attachment(model).layers.values()
        pairs = [(layer.a, layer.b) for layer in layers]
        return LoftAdamW(pairs, learning_rate, eps=self.eps, weight_decay=weight_decay)

    def clip_gradients(self, model: PeftModel, optimizer: torch.optim.Optimizer, max_norm: float) -> Tensor | float:
        """The norm is of the full weights' gradient, as far as the step can see it."""
        from autolora.adapters.kernels.loft import LoftAdamW

        if not isinstance(optimizer, LoftAdamW):
            raise VariantError(f"{self.name} clips for its own optimizer, got {type(optimizer).__name__}")
        return optimizer.clip_grad_norm(max_norm)


register(
    Loft(
        name="loft",
        title="LoFT",
        paper="arXiv 2505.21289",
        above_zero=("eps",),
        cost=1.32,
        kind="optimizer",
        optimizer_name="AdamW of W, projected on one factor at a time",
        constraints="r <= min(m, n), alpha = r",
        # It wants full fine-tuning's rate. From LoRA-alpha's law that is LoRA's times sqrt(r / 3 n), -1.6 decades at
        # n = 4096 and r = 8, -0.7 at n = 64, where the runs of studies/curves say -0.4.
        traits=Traits(shift=-0.7, shift_sd=0.45, unit_scale=True),
        starts_as_lora=True,
    )
)
