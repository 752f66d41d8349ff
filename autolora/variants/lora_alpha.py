"""LoRA-alpha (arXiv 2606.12883): alpha by the square-root law, which lets LoRA learn at full fine-tuning's rates.

Variant II matches LoRA's signal curvature at initialization to full fine-tuning's, layer by layer: alpha = sqrt(3 n r)
for a Kaiming-uniform A of n = in_features. Variant I is its empirical form, alpha = 256 sqrt(r) for every layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolora.adapters.errors import VariantError
from autolora.adapters.start import Allotment
from autolora.adapters.targets import describe
from autolora.space import Traits
from autolora.variants.base import Variant
from autolora.variants.registry import register

if TYPE_CHECKING:
    from autolora.adapters.start import Start
    from autolora.adapters.targets import LinearLayer

PAPER = "arXiv 2606.12883"


@dataclass(frozen=True)
class LayerwiseAlpha(Variant):
    """Alpha is that of a layer as wide as the model; one of n inputs gets it times sqrt(n / width)."""

    def allocate(self, start: Start[LinearLayer]) -> dict[str, Allotment]:
        width = getattr(start.model.config.get_text_config(), "hidden_size", None)
        if width is None:
            raise VariantError(f"{self.name} scales alpha by the model's width, and {describe(start.model)} names none")
        return {
            name: Allotment(start.rank, start.alpha * (layer.in_features / width) ** 0.5)
            for name, layer in start.layers.items()
        }


register(
    LayerwiseAlpha(
        name="lora_alpha",
        title="LoRA-alpha (II)",
        paper=PAPER,
        adapts_experts=True,
        cost=0.98,
        kind="scaling",
        starts_as_lora=True,
    )
)
register(
    Variant(
        name="lora_alpha_empirical",
        title="LoRA-alpha (I)",
        paper=PAPER,
        adapts_experts=True,
        cost=1.01,
        kind="scaling",
        traits=Traits(alpha_law="empirical"),
        starts_as_lora=True,
        peft_options={},
    )
)
