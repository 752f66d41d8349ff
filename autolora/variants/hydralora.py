"""HydraLoRA (arXiv 2404.19245): y = W x + s sum_e g_e(x) B_e A x, one A (r, n) and several heads B_e (m, r).

g is the softmax of a router's logits over all heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolora.space import Traits
from autolora.variants.base import Variant
from autolora.variants.registry import register

if TYPE_CHECKING:
    from autolora.adapters.layer import AdaptedLayer
    from autolora.adapters.start import Start


@dataclass(frozen=True)
class Hydralora(Variant):
    """A starts as LoRA's, every head at 0; one head is LoRA.

    Attributes:
        heads: how many.
    """

    heads: int = 3

    def initialize(self, start: Start[AdaptedLayer]) -> None:
        from autolora.adapters.kernels.experts import install, widen_b

        if self.heads == 1:
            return
        layers = start.layers.values()
        for layer in layers:
            widen_b(layer, self.heads)
        install(layers, start.seed, experts=self.heads, top_k=self.heads, shared_a=True, balanced=False)


register(
    Hydralora(
        name="hydralora",
        title="HydraLoRA",
        paper="arXiv 2404.19245",
        above_zero=("heads",),
        cost=1.07,
        kind="architecture",
        # The authors' rate, 2e-4 at s = 8 and r = 4, is LoRA's usual one, and gates that sum to 1 change little.
        traits=Traits(shift_sd=0.4),
        export_form="own",
        factored=False,
        own_forward=True,
        mixture=True,
    )
)
