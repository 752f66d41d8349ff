"""LoRA-FA (arXiv 2308.03303): A stays frozen at its random start, B alone trains."""

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
class LoraFA(Variant):
    """Half the trainable parameters of LoRA, and no gradient for A."""

    def initialize(self, start: Start[AdaptedLayer]) -> None:
        for layer in start.layers.values():
            layer.a.requires_grad_(False)


register(
    LoraFA(
        name="lora_fa",
        title="LoRA-FA",
        adapts_experts=True,
        paper="arXiv 2308.03303",
        cost=0.98,
        kind="architecture",
        optimizer_name="AdamW on B",
        # B alone moves, so p = 1 exactly, and it wants more than LoRA, whose A helps: at least 0.6 decades in the runs
        # of studies/curves. It has B's part of LoRA's Hessian.
        traits=Traits(exponent=1.0, shift=0.5, shift_sd=0.3),
        starts_as_lora=True,
    )
)
