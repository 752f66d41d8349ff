"""LoRA+ (arXiv 2402.12354): B learns at a multiple of A's rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autolora.space import Traits
from autolora.variants.base import Variant, register

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True)
class LoraPlus(Variant):
    """The learning rate is A's; B's is ``ratio`` times that.

    Under Adam a ratio and alpha are redundant: ratio c at s is the run of ratio 1 at c s (B0 = 0).
    """

    ratio: float = 16.0  # the paper's recommendation

    def parameter_groups(self, model: PeftModel, learning_rate: float) -> list[dict[str, Any]]:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        return [
            {"params": [p for name, p in named if ".lora_B." not in name], "lr": learning_rate},
            {"params": [p for name, p in named if ".lora_B." in name], "lr": learning_rate * self.ratio},
        ]


# While B does the moving (B0 = 0, small learning rates) its rate decides: the best one is LoRA's over 16, -1.2 decades.
# Were both factors to move alike, their geometric mean would: -0.6. Nearer to the first, and wide enough for both.
register(
    LoraPlus(
        name="lora_plus",
        title="LoRA+",
        paper="arXiv 2402.12354",
        traits=Traits(shift=-1.0, shift_sd=0.3),
        starts_as_lora=True,
        peft_options={},  # the ratio is the optimiser's
    )
)
