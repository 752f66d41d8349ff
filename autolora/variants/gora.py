"""GoRA (arXiv 2502.12171): ranks by the importance of each layer, and B starts along the compressed gradient.

Importance is mean |W o G|; s is alpha / sqrt(r) with the layer's own r; A is Kaiming-uniform and
s B0 A0 = -gamma sqrt(n / r) G A0^T (A0 A0^T)^-1 A0, a gradient step of about gamma times G's size; not subtracted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from autolora.adapters.attachment import frozen_layers
from autolora.adapters.factors import gradient_factors
from autolora.adapters.start import Allotment
from autolora.space import Traits
from autolora.variants.base import Variant
from autolora.variants.registry import register

if TYPE_CHECKING:
    from autolora.adapters.layer import AdaptedLayer
    from autolora.adapters.start import Start
    from autolora.adapters.targets import LinearLayer

LEAST, MOST = 0.5, 4.0
"""Bounds of a layer's rank, relative to r: the authors take 4 and 32 where r = 8."""


@dataclass(frozen=True)
class Gora(Variant):
    """G's top components stand for G, as many as :func:`gradient_factors` keeps: all of it where a layer has no
    more.

    Attributes:
        gamma: size of the first step, in units of the gradient.
    """

    gamma: float = 0.05

    def allocate(self, start: Start[LinearLayer]) -> dict[str, Allotment]:
        modules = {name: start.model.get_submodule(name) for name in start.layers}
        factors = gradient_factors(start.model, modules, start.sample, _largest(start.rank))
        importance = {name: float(found[-1]) for name, found in factors.items()}
        ranks = shared_out(start.layers, importance, start.rank)
        return {name: Allotment(ranks[name], start.alpha) for name in start.layers}

    def initialize(self, start: Start[AdaptedLayer]) -> None:
        import torch

        layers = start.layers
        found = gradient_factors(*frozen_layers(start.model), start.sample, _largest(start.rank))
        for name, (u, values, vh, _) in found.items():
            a, b = layers[name].a.detach().cpu(), layers[name].b
            compressed = (u * values) @ torch.linalg.solve(a @ a.T, a @ vh.T).T  # G A^T (A A^T)^-1, (m, r)
            size = self.gamma * (a.shape[1] / len(a)) ** 0.5 / layers[name].scaling
            b.data.copy_(-size * compressed)


def _largest(rank: int) -> int:
    """The most that a layer's rank may be if ``rank`` is asked for."""
    return round(MOST * rank)


def shared_out(layers: Mapping[str, LinearLayer], importance: Mapping[str, float], rank: int) -> dict[str, int]:
    """Ranks in proportion to importance per parameter that a rank costs, m + n, within the bounds, by highest averages:
    for as many parameters in all as ``rank`` everywhere takes, or just below."""
    costs = {name: layer.out_features + layer.in_features for name, layer in layers.items()}
    ranks = dict.fromkeys(layers, max(1, round(LEAST * rank)))
    left = sum(costs[name] * (rank - ranks[name]) for name in layers)

    def turn(name: str) -> tuple[float, int, int, str]:
        """Who is due most comes first; of layers that are due the same, as where none has a gradient, the lowest."""
        return -importance[name] / costs[name] / (ranks[name] + 1), ranks[name], places[name], name

    places = {name: place for place, name in enumerate(layers)}
    queue = [turn(name) for name in layers]
    heapify(queue)
    while queue:
        name = heappop(queue)[-1]
        if ranks[name] < min(_largest(rank), layers[name].largest_rank) and costs[name] <= left:
            ranks[name] += 1
            left -= costs[name]
            heappush(queue, turn(name))
    return ranks


register(
    Gora(
        name="gora",
        title="GoRA",
        paper="arXiv 2502.12171",
        cost=1.00,
        # Kaiming-uniform A and a small B: near LoRA, whose best rate it has in the runs of studies/curves.
        traits=Traits(shift_sd=0.25, rank_stabilized=True),
        needs=("gradients",),
        moves_at_start=True,
        shares_ranks=True,
    )
)
