"""PiSSA (arXiv 2404.02948): W = U S V^T; A = sqrt(S_r / s) V_r^T, B = U_r sqrt(S_r / s), subtracted from W."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolora.adapters.attachment import attachment, frozen_layers, start_from
from autolora.adapters.factors import weight_factors
from autolora.adapters.svd import leading_svd
from autolora.space import Traits
from autolora.variants.base import Variant
from autolora.variants.registry import register

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor

    from autolora.adapters.layer import AdaptedLayer
    from autolora.adapters.start import Start


@dataclass(frozen=True)
class Pissa(Variant):
    """The principal r singular triplets train, the rest is frozen."""

    def initialize(self, start: Start[AdaptedLayer]) -> None:
        rank = start.rank
        factors = weight_factors(*frozen_layers(start.model), rank, leading_svd, few=True)
        start_from_triplets(
            start.model, {name: (u[:, :rank], s[:rank], vh[:rank]) for name, (u, s, vh) in factors.items()}
        )


def start_from_triplets(model: PeftModel, triplets: Mapping[str, tuple[Tensor, Tensor, Tensor]]) -> None:
    """Start at A = sqrt(S / s) V^T, B = U sqrt(S / s), given U (m, r), S (r,) and V^T (r, n) of each layer."""
    layers = attachment(model).layers
    starts = {}
    for name, (u, values, vh) in triplets.items():
        root = (values / layers[name].scaling).sqrt()
        starts[name] = (root[:, None] * vh, u * root)
    start_from(model, starts)


register(
    Pissa(
        name="pissa",
        title="PiSSA",
        paper="arXiv 2404.02948",
        cost=1.03,
        # Both factors carry 1/sqrt(s), so p = 1/2 exactly and alpha is redundant under Adam. The shift: LR-matters'
        # tables put PiSSA's best learning rate 0.4 to 0.5 decades below LoRA's, as do runs on stories260K (x 0.4).
        traits=Traits(exponent=0.5, shift=-0.4, shift_sd=0.2, alpha_redundant=True, alpha_law=1.0),
        export_form="rank 2r",
        subtracts=True,
        peft_options={"init_lora_weights": "pissa"},
    )
)
