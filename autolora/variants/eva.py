"""EVA (arXiv 2410.07170): A starts as the top right singular vectors of the layer's inputs, B at zero.

Ranks are shared out between layers by how much of its inputs' variance each direction explains.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolora.adapters.attachment import frozen_layers
from autolora.adapters.errors import VariantError
from autolora.adapters.factors import extreme_eigenvectors, input_factors, precise
from autolora.adapters.start import Allotment
from autolora.adapters.statistics import labeled_input_moments
from autolora.space import Traits
from autolora.variants.base import Variant
from autolora.variants.registry import register

if TYPE_CHECKING:
    from torch import Tensor, nn

    from autolora.adapters.layer import AdaptedLayer
    from autolora.adapters.start import Batch, Start
    from autolora.adapters.targets import LinearLayer


@dataclass(frozen=True)
class Eva(Variant):
    """The singular vectors are exact, of the inputs at labeled tokens, as they are: not of their differences from the
    mean. A layer none of whose directions counts gets no adapter, and s is the same for all.

    Attributes:
        rho: a layer gets at most rho r directions; 1 leaves the ranks uniform.
    """

    rho: float = 2.0

    def check(self, start: Start[LinearLayer]) -> None:
        super().check(start)
        if self.rho < 1:
            raise VariantError(f"{self.name}.rho is {self.rho:g}: with less than 1 layers could not take r directions")

    def allocate(self, start: Start[LinearLayer]) -> dict[str, Allotment]:
        rank = start.rank
        most = {name: min(round(self.rho * rank), layer.largest_rank) for name, layer in start.layers.items()}
        modules = {name: start.model.get_submodule(name) for name in start.layers}
        found = self._directions(start.model, modules, start.sample, max(most.values()))
        shares = []
        for name, (values, _, total) in found.items():
            explained = (values[: most[name]] / total.clamp_min(1e-30)).tolist()
            shares += [(-share, place, name) for place, share in enumerate(explained)]
        chosen = sorted(shares, key=lambda item: item[:2])[: rank * len(start.layers)]
        ranks = Counter(name for _, _, name in chosen)
        own = {name: ranks[name] for name in start.layers if ranks[name]}
        return {name: Allotment(own[name], start.alpha * own[name] / rank) for name in own}

    def initialize(self, start: Start[AdaptedLayer]) -> None:
        layers = start.layers
        needed = max(layer.rank for layer in layers.values())
        for name, (_, directions, _) in self._directions(*frozen_layers(start.model), start.sample, needed).items():
            a = layers[name].a
            a.data.copy_(directions[: len(a)])

    @staticmethod
    def _directions(
        base: nn.Module, layers: Mapping[str, nn.Module], batches: Sequence[Batch], rank: int
    ) -> dict[str, tuple[Tensor, ...]]:
        return input_factors(base, layers, batches, rank, _principal, labeled_input_moments)


def _principal(moment: Tensor, weight: Tensor, components: int) -> tuple[Tensor, ...]:
    """The largest eigenvalues (k,) with their eigenvectors (k, n), and the sum of all."""
    values, vectors = extreme_eigenvectors(precise(moment), components, largest=True)
    return values.float(), vectors.T.float(), moment.diagonal().sum()


register(
    Eva(
        name="eva",
        title="EVA",
        paper="arXiv 2410.07170",
        above_zero=("rho",),
        cost=1.03,
        # No published best rate was found; the runs of studies/curves have it at LoRA's. A's rows have norm one, in the
        # directions where inputs are largest: the law of alpha for a random A does not apply.
        traits=Traits(shift=-0.1, shift_sd=0.25, alpha_law=1.0),
        needs=("activations",),
        shares_ranks=True,
    )
)
