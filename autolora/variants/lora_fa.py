"""LoRA-FA (arXiv 2308.03303): A stays frozen at its random start, B alone trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autolora.space import Traits
from autolora.variants.attachment import attachment
from autolora.variants.base import Variant, register
from autolora.variants.subtraction import ADAPTER

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True)
class LoraFA(Variant):
    """Half the trainable parameters of LoRA, and no gradient for A."""

    def initialise(self, model: PeftModel, seed: int, batches: Any, horizon: int | None) -> None:
        for layer in attachment(model).layers.values():
            layer.lora_A[ADAPTER].weight.requires_grad_(False)


register(
    LoraFA(
        name="lora_fa",
        title="LoRA-FA",
        paper="arXiv 2308.03303",
        cost=0.98,
        kind="architecture",
        optimiser="AdamW on B",
        # B alone moves, so p = 1 exactly, and it wants more than LoRA, whose A helps: at least 0.6 decades in the runs
        # of studies/curves. It has B's part of LoRA's Hessian.
        traits=Traits(exponent=1.0, shift=0.5, shift_sd=0.3),
        starts_as_lora=True,
    )
)
