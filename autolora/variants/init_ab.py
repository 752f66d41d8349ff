"""Init[AB] (arXiv 2505.23194): A and B both start uniform in +-1/sqrt(n), n = in_features; subtracted from W."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autolora.space import Traits
from autolora.variants.attachment import attachment, random_stream, start_from
from autolora.variants.base import Variant, register
from autolora.variants.subtraction import ADAPTER

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True)
class InitAB(Variant):
    """Neither factor is zero; A is plain LoRA's."""

    def initialise(self, model: PeftModel, seed: int, batches: Any, horizon: int | None) -> None:
        import torch

        generator = random_stream(seed, "lora_B")
        starts = {}
        for name, layer in attachment(model).layers.items():
            a, b = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
            bound = layer.in_features**-0.5
            starts[name] = (a.detach(), torch.empty(b.shape).uniform_(-bound, bound, generator=generator))
        start_from(model, starts)


register(
    InitAB(
        name="init_ab",
        title="Init[AB]",
        paper="arXiv 2505.23194",
        # LR-matters' tables put its best learning rate within 0.1 decades of LoRA's.
        traits=Traits(shift_sd=0.2),
        export_form="rank 2r",
    )
)
