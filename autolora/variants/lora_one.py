"""LoRA-One (arXiv 2502.01235): start from one projected step along the full gradient, which is not subtracted.

-G = U S V^T over a small sample; B = U_r sqrt(S_r / S_1) / sqrt(gamma), A = sqrt(S_r / S_1) V_r^T / sqrt(gamma).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolora.adapters.attachment import frozen_layers
from autolora.adapters.factors import gradient_factors
from autolora.space import Traits
from autolora.variants.base import Variant
from autolora.variants.registry import register

if TYPE_CHECKING:
    from autolora.adapters.layer import AdaptedLayer
    from autolora.adapters.start import Start


@dataclass(frozen=True)
class LoraOne(Variant):
    """Attributes:
    gamma: the start's size is 1/gamma of the normalized gradient; the paper takes 128.
    """

    gamma: float = 128.0

    def initialize(self, start: Start[AdaptedLayer]) -> None:
        rank = start.rank
        layers = start.layers
        for name, (u, values, vh, _) in gradient_factors(*frozen_layers(start.model), start.sample, rank).items():
            if values[0] == 0:  # no gradient reaches the layer: plain LoRA's start is as good
                continue
            root = (values[:rank] / values[0] / self.gamma).sqrt()
            layers[name].set_factors(root[:, None] * vh[:rank], -u[:, :rank] * root)


register(
    LoraOne(
        name="lora_one",
        title="LoRA-One",
        paper="arXiv 2502.01235",
        above_zero=("gamma",),
        cost=0.99,
        # No published best rate was found; the runs of studies/curves have it at LoRA's.
        traits=Traits(shift=-0.1, shift_sd=0.3, alpha_law=1.0),
        needs=("gradients",),
        moves_at_start=True,
    )
)
