"""MiLoRA (arXiv 2406.09044): as PiSSA, from the *last* r singular triplets; the principal ones are frozen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolora.adapters.attachment import frozen_layers
from autolora.adapters.factors import weight_factors
from autolora.adapters.svd import trailing_svd
from autolora.space import Traits
from autolora.variants.base import Variant
from autolora.variants.pissa import start_from_triplets
from autolora.variants.registry import register

if TYPE_CHECKING:
    from autolora.adapters.layer import AdaptedLayer
    from autolora.adapters.start import Start


@dataclass(frozen=True)
class Milora(Variant):
    """The minor r singular triplets train; the SVD is exact, as a randomized one has no minor components."""

    def initialize(self, start: Start[AdaptedLayer]) -> None:
        rank = start.rank
        factors = weight_factors(*frozen_layers(start.model), rank, trailing_svd)
        start_from_triplets(
            start.model, {name: (u[:, -rank:], s[-rank:], vh[-rank:]) for name, (u, s, vh) in factors.items()}
        )


register(
    Milora(
        name="milora",
        title="MiLoRA",
        paper="arXiv 2406.09044",
        cost=1.00,
        # As for PiSSA p = 1/2 exactly. LR-matters' tables put its best learning rate 0 to 0.25 decades below LoRA's.
        traits=Traits(exponent=0.5, shift=-0.1, shift_sd=0.2, alpha_redundant=True, alpha_law=1.0),
        export_form="rank 2r",
        subtracts=True,
    )
)
