"""LoRA (arXiv 2106.09685): W x + s B A x, A Kaiming-uniform, B = 0."""

from autolora.variants.base import Variant
from autolora.variants.registry import register

register(
    Variant(
        name="lora",
        title="LoRA",
        adapts_experts=True,
        paper="arXiv 2106.09685",
        kind="reference",
        cost=1.0,
        starts_as_lora=True,
        peft_options={},
    )
)
