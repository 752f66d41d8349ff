"""EVA (arXiv 2410.07170): A starts as the top right singular vectors of the layer's inputs, B at zero.

Ranks are shared out between layers by how much of its inputs' variance each direction explains.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autolora.space import Traits
from autolora.variants.attachment import attachment, frozen_layers
from autolora.variants.base import Allotment, Variant, VariantError, register
from autolora.variants.factors import extreme_eigenvectors, input_factors, precise
from autolora.variants.statistics import labelled_input_moments
from autolora.variants.subtraction import ADAPTER

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from autolora.variants.targets import LinearLayer


@dataclass(frozen=True)
class Eva(Variant):
    """The singular vectors are exact, of the inputs at labelled tokens, as they are: not of their differences from the
    mean. A layer none of whose directions counts gets no adapter, and s is the same for all.

    Attributes:
        rho: a layer gets at most rho r directions; 1 leaves the ranks uniform.
    """

    rho: float = 2.0

    def check(self, model: nn.Module, layers: Mapping[str, LinearLayer], rank: int, dropout: float) -> None:
        super().check(model, layers, rank, dropout)
        if self.rho < 1:
            raise VariantError(f"{self.name}.rho is {self.rho:g}: with less than 1 layers could not take r directions")

    def allocate(
        self, model: PreTrainedModel, layers: Mapping[str, LinearLayer], rank: int, alpha: float, batches: Any
    ) -> dict[str, Allotment]:
        most = {name: min(round(self.rho * rank), layer.largest_rank) for name, layer in layers.items()}
        modules = {name: model.get_submodule(name) for name in layers}
        shares = []
        for name, (values, _, total) in self._directions(model, modules, batches, max(most.values())).items():
            explained = (values[: most[name]] / total.clamp_min(1e-30)).tolist()
            shares += [(-share, place, name) for place, share in enumerate(explained)]
        chosen = sorted(shares, key=lambda item: item[:2])[: rank * len(layers)]
        ranks = Counter(name for _, _, name in chosen)
        return {name: Allotment(ranks[name], alpha * ranks[name] / rank) for name in layers if ranks[name]}

    def initialise(self, model: PeftModel, seed: int, batches: Any, horizon: int | None) -> None:
        layers = attachment(model).layers
        needed = max(layer.r[ADAPTER] for layer in layers.values())
        for name, (_, directions, _) in self._directions(*frozen_layers(model), batches, needed).items():
            a = layers[name].lora_A[ADAPTER].weight
            a.data.copy_(directions[: len(a)])

    @staticmethod
    def _directions(
        base: nn.Module, layers: Mapping[str, nn.Module], batches: Sequence[Any], rank: int
    ) -> dict[str, tuple[Tensor, ...]]:
        return input_factors(base, layers, batches, rank, _principal, labelled_input_moments)


def _principal(moment: Tensor, weight: Tensor, components: int) -> tuple[Tensor, ...]:
    """The largest eigenvalues (k,) with their eigenvectors (k, n), and the sum of all."""
    values, vectors = extreme_eigenvectors(precise(moment), components, largest=True)
    return values.float(), vectors.T.float(), moment.diagonal().sum()


register(
    Eva(
        name="eva",
        title="EVA",
        paper="arXiv 2410.07170",
        cost=1.03,
        # No published best rate was found; the runs of studies/curves have it at LoRA's. A's rows have norm one, in the
        # directions where inputs are largest: the law of alpha for a random A does not apply.
        traits=Traits(shift=-0.1, shift_sd=0.25, alpha_law=1.0),
        needs=("activations",),
    )
)
