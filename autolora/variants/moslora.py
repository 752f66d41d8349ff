"""MoSLoRA (arXiv 2406.11909): B M A with a trainable r x r mixer M of A's and B's subspaces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolora.space import Traits
from autolora.variants.base import Variant
from autolora.variants.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from autolora.adapters.layer import AdaptedLayer
    from autolora.adapters.start import Start


@dataclass(frozen=True)
class Moslora(Variant):
    """It leaves as a plain LoRA, with M A in A's place."""

    def initialize(self, start: Start[AdaptedLayer]) -> None:
        """M Kaiming-uniform, bound 1/sqrt(r); A and B as LoRA's."""
        import torch

        from autolora.adapters.kernels.moslora import Mixed

        generator = start.stream("mixer")
        for layer in start.layers.values():
            rank = layer.rank
            bound = rank**-0.5
            layer.give("mixer", torch.empty(rank, rank).uniform_(-bound, bound, generator=generator))
            layer.install(Mixed())

    def plain_factors(self, layer: AdaptedLayer) -> tuple[Tensor, Tensor]:
        a, b = super().plain_factors(layer)
        return layer.given("mixer").detach() @ a, b


register(
    Moslora(
        name="moslora",
        title="MoSLoRA",
        paper="arXiv 2406.11909",
        cost=1.05,
        kind="architecture",
        traits=Traits(shift_sd=0.25),  # M of LoRA's own size mixes A's rows: LoRA's best rate in studies/curves
        factored=False,
        own_forward=True,
    )
)
