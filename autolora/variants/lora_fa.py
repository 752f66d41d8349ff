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
        kind="architecture",
        # B alone moves, so p = 1 exactly. It has B's part of LoRA's Hessian; LoRA's best rate is that of both factors.
        traits=Traits(exponent=1.0, shift_sd=0.25),
        starts_as_lora=True,
    )
)
