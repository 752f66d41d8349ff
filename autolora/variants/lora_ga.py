"""LoRA-GA (arXiv 2407.05000): start in the gradient's directions, so that the first step is full fine-tuning's.

G = U S V^T, averaged over a small sample; A = V^T[:r], B = U[:, r:2r], both times m^(1/4)/sqrt(gamma) ("stable" scale);
subtracted from W.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolora.adapters.attachment import frozen_layers, start_from
from autolora.adapters.errors import VariantError
from autolora.adapters.factors import gradient_factors
from autolora.space import Traits
from autolora.variants.base import Variant
from autolora.variants.registry import register

if TYPE_CHECKING:
    from autolora.adapters.layer import AdaptedLayer
    from autolora.adapters.start import Start
    from autolora.adapters.targets import LinearLayer


@dataclass(frozen=True)
class LoraGA(Variant):
    """Attributes:
    gamma: the start's size is 1/sqrt(gamma); the paper takes 16, and 64 for models of 7 billion parameters.
    """

    gamma: float = 16.0

    def check(self, start: Start[LinearLayer]) -> None:
        super().check(start)
        rank = start.rank
        name, smallest = min(start.layers.items(), key=lambda item: item[1].largest_rank)
        if 2 * rank > smallest.largest_rank:
            raise VariantError(
                f"{self.name} takes 2r directions of the gradient, and layer {name!r} has {smallest.largest_rank}: "
                f"rank {rank} must be at most {smallest.largest_rank // 2}"
            )
        if start.dropout > 0:
            raise VariantError(
                f"{self.name} must be trained without dropout, which undoes its start; got {start.dropout:g}"
            )

    def initialize(self, start: Start[AdaptedLayer]) -> None:
        rank = start.rank
        starts = {}
        for name, (u, _, vh, _) in gradient_factors(*frozen_layers(start.model), start.sample, 2 * rank).items():
            size = u.shape[0] ** 0.25 / self.gamma**0.5
            starts[name] = (size * vh[:rank], size * u[:, rank : 2 * rank])
        start_from(start.model, starts)


register(
    LoraGA(
        name="lora_ga",
        title="LoRA-GA",
        paper="arXiv 2407.05000",
        above_zero=("gamma",),
        cost=1.02,
        constraints="2 r <= min(m, n), no dropout",
        # LR-matters places it by curvature, up to 100x LoRA's, at as little as 1/18 of LoRA's learning rate.
        traits=Traits(shift=-0.5, shift_sd=0.3, alpha_law=1.0),
        needs=("gradients",),
        export_form="rank 2r",
        subtracts=True,
    )
)
