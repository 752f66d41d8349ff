"""MoSLoRA (arXiv 2406.11909): B M A with a trainable r x r mixer M of A's and B's subspaces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autolora.space import Traits
from autolora.variants.attachment import attachment, random_stream
from autolora.variants.base import Variant, register
from autolora.variants.subtraction import ADAPTER

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor


@dataclass(frozen=True)
class Moslora(Variant):
    """It leaves as a plain LoRA, with M A in A's place."""

    def initialise(self, model: PeftModel, seed: int, batches: Any, horizon: int | None) -> None:
        """M Kaiming-uniform, bound 1/sqrt(r); A and B as LoRA's."""
        import torch

        from autolora.variants.kernels.branch import give
        from autolora.variants.kernels.moslora import Mixed

        generator = random_stream(seed, "mixer")
        for layer in attachment(model).layers.values():
            rank = layer.r[ADAPTER]
            bound = rank**-0.5
            give(layer, "mixer", torch.empty(rank, rank).uniform_(-bound, bound, generator=generator))
            layer.lora_variant[ADAPTER] = Mixed()

    def plain_factors(self, layer: Any) -> tuple[Tensor, Tensor]:
        a, b = super().plain_factors(layer)
        return layer.mixer.detach() @ a, b


register(
    Moslora(
        name="moslora",
        title="MoSLoRA",
        paper="arXiv 2406.11909",
        cost=1.05,
        kind="architecture",
        traits=Traits(shift_sd=0.25),  # M of LoRA's own size mixes A's rows: LoRA's best rate in studies/curves
        factored=False,
    )
)
