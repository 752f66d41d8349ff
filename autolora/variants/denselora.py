"""DenseLoRA (arXiv 2505.23808): an encoder A and a decoder B for all layers of a type, a dense r x r M for each layer.

y = W x + s gelu(B_t M gelu(A_t x)): L layers of a type train r (m + n) + L r^2 numbers, where LoRA trains L r (m + n).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolora.adapters.targets import by_type
from autolora.space import Traits
from autolora.variants.base import Variant
from autolora.variants.registry import register

if TYPE_CHECKING:
    from autolora.adapters.layer import AdaptedLayer
    from autolora.adapters.start import Start


@dataclass(frozen=True)
class Denselora(Variant):
    """No matrix stands for it: it stays a branch beside W, and cannot be merged."""

    def initialize(self, start: Start[AdaptedLayer]) -> None:
        """A and B of a type as LoRA's in its first layer; M Kaiming-uniform, bound 1/sqrt(r)."""
        import torch

        from autolora.adapters.kernels.denselora import Dense

        generator = start.stream("mixer")
        adapted = start.layers
        for first, names in by_type(adapted).items():
            shared = adapted[first]
            for name in names:
                layer = adapted[name]
                layer.replace_factors(shared.a, shared.b)
                rank = layer.rank
                bound = rank**-0.5
                layer.give("mixer", torch.empty(rank, rank).uniform_(-bound, bound, generator=generator))
                layer.install(Dense())


register(
    Denselora(
        name="denselora",
        title="DenseLoRA",
        paper="arXiv 2505.23808",
        cost=1.05,
        kind="architecture",
        constraints="r <= min(m, n); far fewer parameters than LoRA's, so higher r",
        # The authors train it at LoRA's usual 3e-4; but two GELUs of slope 1/2 and M make what B sees and passes on
        # about a seventh of LoRA's. studies/curves says 0.2 decades above LoRA.
        traits=Traits(shift=0.3, shift_sd=0.4),
        export_form="own",
        factored=False,
        own_forward=True,
    )
)
