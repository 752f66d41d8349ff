"""MELoRA (arXiv 2402.17263): k mini LoRAs on the diagonal, block i from the i-th n/k inputs to the i-th m/k outputs.

Each has rank r, so the update has rank k r, from as many parameters as LoRA's of rank r. k = 1 is LoRA.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolora.adapters.errors import VariantError
from autolora.space import Traits
from autolora.variants.base import Variant
from autolora.variants.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from autolora.adapters.layer import AdaptedLayer
    from autolora.adapters.start import Start
    from autolora.adapters.targets import LinearLayer


@dataclass(frozen=True)
class Melora(Variant):
    """A and B as LoRA stores them: block i is the i-th columns of A and the i-th rows of B.

    Attributes:
        k: blocks on the diagonal.
    """

    k: int = 2

    def check(self, start: Start[LinearLayer]) -> None:
        super().check(start)
        for name, layer in start.layers.items():
            size = f"{layer.out_features} x {layer.in_features}"
            if layer.in_features % self.k or layer.out_features % self.k:
                raise VariantError(
                    f"{self.name} cuts every layer in k = {self.k} blocks, and {name!r} is {size}: set "
                    f"space.options.{self.name}.k to a divisor of both"
                )
            if start.rank > layer.largest_rank // self.k:
                raise VariantError(
                    f"{self.name} gives each of its k = {self.k} blocks rank {start.rank}, which does not fit those of "
                    f"{name!r} ({size}): use rank 1 to {layer.largest_rank // self.k}, or a smaller "
                    f"space.options.{self.name}.k"
                )

    def exported_rank(self, rank: int, layers: Mapping[str, LinearLayer]) -> int:
        return self.k * rank

    def initialize(self, start: Start[AdaptedLayer]) -> None:
        """A Kaiming-uniform block by block, bound sqrt(k / n): LoRA's numbers, times sqrt(k)."""
        from autolora.adapters.kernels.melora import BlockDiagonal

        for layer in start.layers.values():
            layer.a.data.mul_(self.k**0.5)
            layer.install(BlockDiagonal(self.k))

    def plain_factors(self, layer: AdaptedLayer) -> tuple[Tensor, Tensor]:
        """The blocks spread out: A (k r, n) and B (m, k r)."""
        import torch

        a, b = super().plain_factors(layer)
        blocks = a.chunk(self.k, dim=1), b.chunk(self.k)
        spread_a, spread_b = (torch.block_diag(*each) for each in blocks)  # type: ignore[no-untyped-call]
        return spread_a, spread_b


register(
    Melora(
        name="melora",
        title="MELoRA",
        paper="arXiv 2402.17263",
        above_zero=("k",),
        cost=0.95,
        kind="architecture",
        constraints="r <= min(m, n) / k; m and n divisible by k",
        # Unified finds that it wants clearly less than LoRA, studies/curves that it wants the same.
        traits=Traits(shift=-0.1, shift_sd=0.3),
        export_form="rank kr",
        factored=False,
        own_forward=True,
    )
)
