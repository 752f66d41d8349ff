"""rsLoRA (arXiv 2312.03732): LoRA with s = alpha / sqrt(r)."""

from autolora.space import Traits
from autolora.variants.base import Variant
from autolora.variants.registry import register

register(
    Variant(
        name="rslora",
        title="rsLoRA",
        adapts_experts=True,
        paper="arXiv 2312.03732",
        cost=1.00,
        kind="scaling",
        traits=Traits(rank_stabilized=True),
        starts_as_lora=True,
        peft_options={"use_rslora": True},
    )
)
