"""AdaLoRA (arXiv 2303.10512): y = W x + s B (e o A x), of ever fewer triplets (e_i, A[i], B[:, i]).

Every layer starts with more than r; those that matter least over all layers go, to r a layer on average in the end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolora.adapters.attachment import attachment
from autolora.adapters.errors import VariantError
from autolora.adapters.start import Allotment
from autolora.space import Traits
from autolora.variants.base import Variant
from autolora.variants.registry import register

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from torch import Tensor

    from autolora.adapters.layer import AdaptedLayer
    from autolora.adapters.start import Start
    from autolora.adapters.targets import LinearLayer

PRUNINGS = 100
"""Into which a run is cut: the paper prunes every 100 steps of runs of tens of thousands."""


@dataclass(frozen=True)
class Adalora(Variant):
    """s = alpha / r stays as it is, whatever the ranks become.

    Attributes:
        initial: triplets of a layer at the start, as a multiple of r.
        tinit: the share of the run before the first pruning.
        tfinal: the share of the run after the last one.
        orthogonality: weight of |A A^T - I| and |B^T B - I| beside the loss, the paper's gamma.
    """

    initial: float = 1.5
    tinit: float = 0.1
    tfinal: float = 0.3
    orthogonality: float = 0.1

    def check(self, start: Start[LinearLayer]) -> None:
        super().check(start)
        options = f"space.options.{self.name}"
        if not self.initial >= 1:
            raise VariantError(f"{self.name} got initial {self.initial:g}: set {options}.initial to 1 or more")
        if not (self.tinit >= 0 and self.tfinal >= 0 and self.tinit + self.tfinal < 1):
            raise VariantError(
                f"{self.name} got tinit {self.tinit:g} and tfinal {self.tfinal:g}: shares of the run, neither below 0, "
                f"with some left between them to prune in; change {options}.tinit or {options}.tfinal"
            )
        if not self.orthogonality >= 0:
            raise VariantError(
                f"{self.name} got orthogonality {self.orthogonality:g}: set {options}.orthogonality to 0 or more"
            )

    def allocate(self, start: Start[LinearLayer]) -> dict[str, Allotment]:
        """What every layer starts with."""
        most = math.ceil(self.initial * start.rank)
        ranks = {name: min(most, layer.largest_rank) for name, layer in start.layers.items()}
        return {name: Allotment(own, start.alpha * own / start.rank) for name, own in ranks.items()}

    def initialize(self, start: Start[AdaptedLayer]) -> None:
        """A and B normal with standard deviation 0.02, e = 0."""
        import torch

        from autolora.adapters.kernels.adalora import Singular

        generator = start.stream("triplets")
        for layer in start.layers.values():
            for factor in (layer.a, layer.b):
                factor.data.copy_(torch.empty(factor.shape).normal_(0, 0.02, generator=generator))
            layer.give("singular_values", torch.zeros(layer.rank))
            layer.install(Singular())

    def optimizer(self, model: PeftModel, learning_rate: float, weight_decay: float = 0.0) -> torch.optim.Optimizer:
        """AdamW, and on schedule the pruning."""
        from autolora.adapters.kernels.adalora import AdaloraAdamW, Budget, Triplets

        record = attachment(model)
        layers = record.layers.values()
        horizon = record.horizon
        assert horizon is not None, "attach asks for it"
        budget = Budget(
            first=sum(layer.rank for layer in layers),
            last=record.rank * len(layers),
            begin=int(self.tinit * horizon),
            end=horizon - int(self.tfinal * horizon),
            interval=max(1, horizon // PRUNINGS),
        )
        triplets = [Triplets(layer.a, layer.b, layer.given("singular_values")) for layer in layers]
        return AdaloraAdamW(
            triplets, budget, self.parameter_groups(model, learning_rate), learning_rate, weight_decay=weight_decay
        )

    def penalty(self, model: PeftModel) -> Tensor | None:
        """As its authors' code has it: the mean over all A and B, of norms that are not squared.

        The paper's formula sums squares. Under Adam that outweighs the loss's gradients at the start, where A and B
        are far from orthogonal.
        """
        import torch

        if self.orthogonality == 0:
            return None
        grams: dict[int, list[Tensor]] = {}
        for layer in attachment(model).layers.values():
            a, b = layer.a, layer.b
            grams.setdefault(len(a), []).extend((a @ a.T, b.T @ b))
        norms = [
            torch.linalg.matrix_norm(torch.stack(of_rank) - torch.eye(rank, device=of_rank[0].device))
            for rank, of_rank in grams.items()
        ]
        return self.orthogonality * torch.cat(norms).mean()

    def plain_factors(self, layer: AdaptedLayer) -> tuple[Tensor, Tensor]:
        """Of the triplets that count; of a layer that has none, one that adds nothing."""
        a, b = super().plain_factors(layer)
        e = layer.given("singular_values").detach()
        kept = e.nonzero()[:, 0] if e.any() else slice(1)
        return a[kept], (b * e)[:, kept]


register(
    Adalora(
        name="adalora",
        title="AdaLoRA",
        paper="arXiv 2303.10512",
        above_zero=("initial",),
        cost=1.04,
        kind="architecture",
        needs=("horizon",),
        constraints="r <= min(m, n), to which a layer's initial rank is cut, too",
        optimizer_name="AdamW, pruning the least important triplets by a cubic schedule",
        export_form="rank r+",
        factored=False,
        own_forward=True,
        # About three times LoRA's rate or more (Unified): e, A and B all start small. A is not Kaiming-uniform.
        traits=Traits(shift=0.5, shift_sd=0.4, alpha_law=1.0),
        shares_ranks=True,
    )
)
