"""LoRA+ (arXiv 2402.12354): B learns at a multiple of A's rate."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from autolora.space import Traits
from autolora.variants.base import Variant
from autolora.variants.registry import register

if TYPE_CHECKING:
    from peft import PeftModel

    from autolora.adapters.groups import Group


SHARE = 5 / 6
"""Of a ratio's decades, how far the best rate moves down. While B does the moving (B0 = 0, small rates) its rate is
what decides: all of it. Were both factors to move alike, their geometric mean would: half. Nearer to the first, with a
spread wide enough for both: at 16 the shift is -1."""


@dataclass(frozen=True)
class LoraPlus(Variant):
    """The learning rate is A's; B's is ``ratio`` times that.

    Under Adam a ratio and alpha are redundant: ratio c at s is the run of ratio 1 at c s (B0 = 0).
    """

    ratio: float = 16.0  # the paper's recommendation

    @property
    def own_step(self) -> bool:
        """False: the optimizer is plain LoRA's, with two rates."""
        return False

    def configured(self, **options: object) -> LoraPlus:
        """The best rate falls as B's rises: by ``SHARE`` of the ratio's decades."""
        plus = super().configured(**options)
        assert isinstance(plus, LoraPlus)
        return replace(plus, traits=replace(self.traits, shift=-SHARE * math.log10(plus.ratio)))

    def parameter_groups(self, model: PeftModel, learning_rate: float) -> list[Group]:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        return [
            {"params": [p for name, p in named if ".lora_B." not in name], "lr": learning_rate},
            {"params": [p for name, p in named if ".lora_B." in name], "lr": learning_rate * self.ratio},
        ]


register(
    LoraPlus(
        name="lora_plus",
        title="LoRA+",
        adapts_experts=True,
        paper="arXiv 2402.12354",
        above_zero=("ratio",),
        cost=0.97,
        kind="optimizer",
        optimizer_name="AdamW, B at ratio times A's rate",
        traits=Traits(shift=-SHARE * math.log10(16.0), shift_sd=0.3),
        redundant_with_alpha=("ratio",),
        starts_as_lora=True,
        peft_options={},  # the ratio is the optimizer's
    )
)
