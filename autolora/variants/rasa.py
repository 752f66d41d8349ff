"""RaSA (arXiv 2503.12576): k of every layer's r ranks go to a pool that all L layers of a type use.

W_i' = W_i + s [B_i B_S] D_i [A_i; A_S]: private are A_i (r - k, n), B_i (m, r - k) and the diagonal D_i, pooled are
A_S (k L, n) and B_S (m, k L).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolora.adapters.errors import VariantError
from autolora.adapters.targets import by_type
from autolora.space import Traits
from autolora.variants.base import Variant
from autolora.variants.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from autolora.adapters.layer import AdaptedLayer
    from autolora.adapters.start import Start
    from autolora.adapters.targets import LinearLayer

RANKS_A_SHARED_ONE = 8
"""Of how many ranks the authors share one."""


@dataclass(frozen=True)
class Rasa(Variant):
    """As many parameters as LoRA's, but for the diagonals; leaves as a plain LoRA of rank r - k + k L.

    Attributes:
        shared: k; None: an eighth of the rank, at least 1.
    """

    shared: int | None = None

    def pooled(self, rank: int) -> int:
        return max(rank // RANKS_A_SHARED_ONE, 1) if self.shared is None else self.shared

    def default(self, option: str, rank: int) -> float:
        return self.pooled(rank) if option == "shared" else super().default(option, rank)

    def check(self, start: Start[LinearLayer]) -> None:
        super().check(start)
        k = self.pooled(start.rank)
        if k >= start.rank:
            raise VariantError(
                f"{self.name} shares {k} of rank {start.rank}: at least one is shared and one is a layer's own; change "
                f"space.rank, or space.options.{self.name}.shared"
            )

    def exported_rank(self, rank: int, layers: Mapping[str, LinearLayer]) -> int:
        """r - k + k L, of the type with the most layers."""
        k = self.pooled(rank)
        return rank - k + k * max(map(len, by_type(layers).values()))

    def initialize(self, start: Start[AdaptedLayer]) -> None:
        """LoRA's A and B, of which the last k ranks are the pool's; D gives either part half of LoRA's r."""
        import torch
        from torch import nn

        from autolora.adapters.kernels.rasa import Pooled

        adapted = start.layers
        for names in by_type(adapted).values():
            layers = [adapted[name] for name in names]
            rank = layers[0].rank
            own = rank - self.pooled(rank)
            factors = [(layer.a.data, layer.b.data) for layer in layers]
            pool_a = nn.Parameter(torch.cat([a[own:] for a, _ in factors]))
            pool_b = nn.Parameter(torch.cat([b[:, own:] for _, b in factors], dim=1))
            weights = [rank / (2 * own)] * own + [rank / (2 * len(pool_a))] * len(pool_a)
            for layer, (a, b) in zip(layers, factors, strict=True):
                layer.replace_factors(nn.Parameter(a[:own].clone()), nn.Parameter(b[:, :own].clone()))
                layer.share("pool_A", pool_a)
                layer.share("pool_B", pool_b)
                layer.give("diagonal", torch.tensor(weights))
                layer.install(Pooled())

    def plain_factors(self, layer: AdaptedLayer) -> tuple[Tensor, Tensor]:
        from autolora.adapters.kernels.rasa import pooled_factors

        a, b = pooled_factors(layer)
        return a.detach(), b.detach()


register(
    Rasa(
        name="rasa",
        title="RaSA",
        paper="arXiv 2503.12576",
        above_zero=("shared",),
        cost=1.06,
        kind="architecture",
        constraints="k < r <= min(m, n)",
        traits=Traits(shift_sd=0.3),  # the authors train it at LoRA's rate
        export_form="rank r+",
        factored=False,
        own_forward=True,
    )
)
