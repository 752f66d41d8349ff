"""DeLoRA (arXiv 2503.18225): directions of B and A apart from their strength, which one trainable bound limits.

W' = W + B Xi A diag(w), Xi = diag(lambda / (r |a_i| |b_i|)), w the norms of W's columns: |W' - W| <= lambda max(w).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolora.space import Traits
from autolora.variants.base import Variant
from autolora.variants.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from autolora.adapters.layer import AdaptedLayer
    from autolora.adapters.start import Start


@dataclass(frozen=True)
class Delora(Variant):
    """PEFT's has ``nn.Linear`` alone; this one has every layer that LoRA has, and leaves as a plain LoRA of rank r.

    It wants clipped gradients, as they are by default: the first of B = 0 is thousands of times the later ones and
    would stay in Adam's second moments. That first step takes W the whole bound away, whatever the learning rate.

    Attributes:
        bound: where lambda of each layer starts; PEFT's default. The authors' GLUE runs have 4 and 12.
    """

    bound: float = 15.0

    def initialize(self, start: Start[AdaptedLayer]) -> None:
        """A and B as LoRA's, lambda at the bound."""
        import torch

        from autolora.adapters.kernels.delora import Bounded

        for layer in start.layers.values():
            layer.give("bound", torch.tensor(self.bound))
            layer.install(Bounded(layer))

    def plain_factors(self, layer: AdaptedLayer) -> tuple[Tensor, Tensor]:
        from autolora.adapters.kernels.delora import Bounded

        branch = layer.branch
        assert isinstance(branch, Bounded)
        return branch.directions(layer).detach(), layer.b.detach()


register(
    Delora(
        name="delora",
        title="DeLoRA",
        paper="arXiv 2503.18225",
        above_zero=("bound",),
        cost=1.02,
        kind="architecture",
        constraints="r <= min(m, n), alpha = r",
        # Unified finds 3 times LoRA's or more, PEFT's guide advises 10 and up; studies/curves has a wide plateau whose
        # middle is half a decade below LoRA's best.
        traits=Traits(shift=0.0, shift_sd=0.6, unit_scale=True),
        factored=False,
        own_forward=True,
    )
)
