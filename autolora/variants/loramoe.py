"""LoRAMoE (arXiv 2312.09979): y = W x + s sum_e g_e(x) B_e A_e x, a mixture of E LoRA experts of r / E ranks each.

g is the softmax of a router's top_k greatest logits, of E. The paper's experts have r ranks each and all serve every
token; shared out and chosen from, as in the unified study (arXiv 2601.22708), they have LoRA's number of parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolora.adapters.attachment import attachment
from autolora.adapters.errors import VariantError
from autolora.space import Traits
from autolora.variants.base import Variant
from autolora.variants.registry import register

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor

    from autolora.adapters.layer import AdaptedLayer
    from autolora.adapters.start import Start
    from autolora.adapters.targets import LinearLayer

MOST_EXPERTS = 8


@dataclass(frozen=True)
class Loramoe(Variant):
    """A and B are LoRA's, each expert a slice of their ranks, with LoRA's start; one expert is LoRA.

    Attributes:
        experts: E; None: the largest divisor of the rank up to 8.
        top_k: experts that a token goes to; from E on all.
        balance: weight of the load-balance loss, the Switch Transformer's (arXiv 2101.03961) averaged over layers. It
            sees every token of a batch, padding too. The paper's own needs types of tasks.
    """

    experts: int | None = None
    top_k: int = 2
    balance: float = 0.01

    def count(self, rank: int) -> int:
        """Experts at this rank."""
        if self.experts is not None:
            return self.experts
        return max(experts for experts in range(1, MOST_EXPERTS + 1) if rank % experts == 0)

    def default(self, option: str, rank: int) -> float:
        return self.count(rank) if option == "experts" else super().default(option, rank)

    def check(self, start: Start[LinearLayer]) -> None:
        super().check(start)
        rank, experts, option = start.rank, self.count(start.rank), f"space.options.{self.name}"
        if rank % experts:
            raise VariantError(
                f"{self.name} shares the rank out over experts = {experts}: rank {rank} must be divisible by it; "
                f"change space.rank, or {option}.experts"
            )
        if self.experts is None and experts == 1:
            raise VariantError(
                f"{self.name} shares the rank out over experts, and rank {rank} has no divisor from 2 to "
                f"{MOST_EXPERTS}: change space.rank, or set {option}.experts"
            )
        if self.top_k == 1 < experts:
            raise VariantError(
                f"{self.name} got top_k = {self.top_k} of {experts} experts: a token needs 2, whose weights the "
                f"router learns (one alone always weighs 1); set {option}.top_k to 2 or more"
            )
        if not self.balance >= 0:
            raise VariantError(f"{self.name} got balance = {self.balance}: set {option}.balance to 0 or more")

    def initialize(self, start: Start[AdaptedLayer]) -> None:
        from autolora.adapters.kernels.experts import install

        experts = self.count(start.rank)
        if experts > 1:
            install(
                start.layers.values(),
                start.seed,
                experts=experts,
                top_k=self.top_k,
                shared_a=False,
                balanced=self.balance > 0,
            )

    def penalty(self, model: PeftModel) -> Tensor | None:
        import torch

        from autolora.adapters.kernels.experts import balances

        terms = balances(attachment(model).layers.values())
        return self.balance * torch.stack(terms).mean() if terms else None


register(
    Loramoe(
        name="loramoe",
        title="LoRAMoE",
        paper="arXiv 2312.09979",
        above_zero=("experts", "top_k"),
        cost=1.03,
        kind="architecture",
        constraints="r <= min(m, n), divisible by experts; top_k > 1",
        # A step of the same size moves a token's output by fewer ranks, each weighed by its gate: 0.2 decades in
        # studies/curves.
        traits=Traits(shift=0.2, shift_sd=0.4),
        export_form="own",
        factored=False,
        own_forward=True,
        mixture=True,
    )
)
