"""OLoRA (arXiv 2406.01775): W = Q R; B = Q[:, :r], A = R[:r], subtracted from W."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolora.adapters.attachment import frozen_layers, start_from
from autolora.adapters.factors import weight_factors
from autolora.space import Traits
from autolora.variants.base import Variant
from autolora.variants.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from autolora.adapters.layer import AdaptedLayer
    from autolora.adapters.start import Start


@dataclass(frozen=True)
class Olora(Variant):
    """B starts orthonormal."""

    def initialize(self, start: Start[AdaptedLayer]) -> None:
        rank = start.rank
        factors = weight_factors(*frozen_layers(start.model), rank, _leading_qr)
        start_from(start.model, {name: (r[:rank], q[:, :rank]) for name, (q, r) in factors.items()})


def _leading_qr(weight: Tensor, components: int) -> tuple[Tensor, Tensor]:
    import torch

    q, r = torch.linalg.qr(weight)
    return q[:, :components], r[:components]


register(
    Olora(
        name="olora",
        title="OLoRA",
        paper="arXiv 2406.01775",
        cost=1.01,
        # Between the 0.4 of LoRA's best learning rate measured on stories260K (-0.4 decades) and the lower ones that
        # LR-matters derives from curvature (down to 1/18). The factors do not carry s.
        traits=Traits(shift=-0.5, shift_sd=0.25, alpha_law=1.0),
        export_form="rank 2r",
        subtracts=True,
        peft_options={"init_lora_weights": "olora"},
    )
)
