"""VeRA (arXiv 2310.11454): W' = W + diag(b) B diag(d) A, trained in d (r) and b (m) alone.

A and B are random, frozen and shared by all layers, which take as many of A's columns and B's rows as they have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolora.space import Traits
from autolora.variants.base import Variant
from autolora.variants.registry import register

if TYPE_CHECKING:
    from peft import PeftConfig
    from peft.tuners._buffer_dict import BufferDict
    from torch import Tensor

    from autolora.adapters.layer import AdaptedLayer
    from autolora.adapters.start import Start
    from autolora.adapters.targets import LinearLayer

START_OF_D = 0.1
"""The paper's; b starts at 0."""


@dataclass(frozen=True)
class Vera(Variant):
    """PEFT's implementation, with A and B of this seed. It leaves as a plain LoRA of rank r, exactly.

    A layer has m + r parameters where LoRA has r (m + n): the paper's ranks are 256 to 1024.
    """

    def lora_config(self, start: Start[LinearLayer], target_modules: list[str]) -> PeftConfig:
        from peft import VeraConfig

        return VeraConfig(
            r=start.rank,
            vera_dropout=start.dropout,
            target_modules=target_modules,
            task_type="CAUSAL_LM",
        )

    def initialize(self, start: Start[AdaptedLayer]) -> None:
        """A and B Kaiming-uniform, bounds sqrt(6 / n) and sqrt(6 / r), n the widest layer's; in float32."""
        import torch

        layers = list(start.layers.values())
        for layer in layers:
            layer.entry("vera_lambda_d").data.fill_(START_OF_D)  # PEFT's went through the base's precision
        device = layers[0].entry("vera_lambda_d").device
        generator = start.stream("bases")
        for name in ("vera_A", "vera_B"):
            bases: BufferDict = getattr(start.model.base_model, name)
            shape = bases[start.adapter_name].shape
            bound = (6 / shape[1]) ** 0.5
            drawn = torch.empty(shape, dtype=torch.float32).uniform_(-bound, bound, generator=generator)
            bases[start.adapter_name] = drawn.to(device)  # where PEFT would copy it to in every forward pass

    def plain_factors(self, layer: AdaptedLayer) -> tuple[Tensor, Tensor]:
        a, b = layer.entry("vera_A")[:, : layer.in_features], layer.entry("vera_B")[: layer.out_features]
        d, scale = layer.entry("vera_lambda_d").detach(), layer.entry("vera_lambda_b").detach()
        return d[:, None] * a, scale[:, None] * b


register(
    Vera(
        name="vera",
        title="VeRA",
        paper="arXiv 2310.11454",
        cost=0.97,
        kind="architecture",
        constraints="r <= min(m, n), usually far above LoRA's; alpha = r",
        traits=Traits(shift=1.0, shift_sd=0.4, unit_scale=True),  # the paper's rates are about ten times LoRA's
        factored=False,
    )
)
