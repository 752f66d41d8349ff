"""RPLoRA (arXiv 2402.02347): plain LoRA, g_A <- (B^T B + d I)^-1 g_A, g_B <- g_B (A A^T + d I)^-1 before AdamW.

That is gradient descent on B A as a manifold with a metric in which it does not matter how B A is split into factors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolora.adapters.attachment import attachment
from autolora.space import Traits
from autolora.variants.base import Variant
from autolora.variants.registry import register

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

    from autolora.adapters.kernels.preconditioned import Precondition


@dataclass(frozen=True)
class Rplora(Variant):
    """Plain LoRA but for its gradients, see :mod:`autolora.adapters.kernels.preconditioned`.

    Attributes:
        damping: added to the diagonals of both Grams. B^T B grows from zero: without damping, or with one relative to
            it, A gets nearly the same step whatever its gradient is, and starves.
    """

    damping: float = 1e-2

    def precondition(self) -> Precondition:
        """What makes the new gradients."""
        from autolora.adapters.kernels.preconditioned import riemannian

        return riemannian

    def optimizer(self, model: PeftModel, learning_rate: float, weight_decay: float = 0.0) -> torch.optim.Optimizer:
        from autolora.adapters.kernels.preconditioned import PreconditionedAdamW

        pairs = [(layer.a, layer.b, layer.scaling) for layer in attachment(model).layers.values()]
        return PreconditionedAdamW(pairs, self.precondition(), self.damping, learning_rate, weight_decay)


register(
    Rplora(
        name="rplora",
        title="RPLoRA",
        paper="arXiv 2402.02347",
        revision=2,
        above_zero=("damping",),
        cost=0.99,
        kind="optimizer",
        optimizer_name="AdamW on gradients times the other factor's inverse Gram",
        # Adam sets the size of a step, as LoRA's; the paper finds a wider range of good rates, studies/curves LoRA's
        # own best.
        traits=Traits(shift=0.0, shift_sd=0.3),
        starts_as_lora=True,
    )
)
