"""VeRA (arXiv 2310.11454): W' = W + diag(b) B diag(d) A, trained in d (r) and b (m) alone.

A and B are random, frozen and shared by all layers, which take as many of A's columns and B's rows as they have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autolora.space import Traits
from autolora.variants.attachment import attachment, random_stream
from autolora.variants.base import Variant, register
from autolora.variants.subtraction import ADAPTER

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor

START_OF_D = 0.1
"""The paper's; b starts at 0."""


@dataclass(frozen=True)
class Vera(Variant):
    """PEFT's implementation, with A and B of this seed. It leaves as a plain LoRA of rank r, exactly.

    A layer has m + r parameters where LoRA has r (m + n): the paper's ranks are 256 to 1024.
    """

    def lora_config(self, rank: int, alpha: float, dropout: float, target_modules: list[str]) -> Any:
        from peft import VeraConfig

        return VeraConfig(
            r=rank,
            vera_dropout=dropout,
            target_modules=target_modules,
            task_type="CAUSAL_LM",
        )

    def initialise(self, model: PeftModel, seed: int, batches: Any, horizon: int | None) -> None:
        """A and B Kaiming-uniform, bounds sqrt(6 / n) and sqrt(6 / r), n the widest layer's; in float32."""
        import torch

        layers = list(attachment(model).layers.values())
        for layer in layers:
            layer.vera_lambda_d[ADAPTER].data.fill_(START_OF_D)  # PEFT's went through the base's precision
        device = layers[0].vera_lambda_d[ADAPTER].device
        generator = random_stream(seed, "bases")
        for bases in (model.base_model.vera_A, model.base_model.vera_B):
            bound = (6 / bases[ADAPTER].shape[1]) ** 0.5
            drawn = torch.empty(bases[ADAPTER].shape, dtype=torch.float32).uniform_(-bound, bound, generator=generator)
            bases[ADAPTER] = drawn.to(device)  # where PEFT would copy it to in every forward pass

    def plain_factors(self, layer: Any) -> tuple[Tensor, Tensor]:
        a, b = layer.vera_A[ADAPTER][:, : layer.in_features], layer.vera_B[ADAPTER][: layer.out_features]
        d, scale = layer.vera_lambda_d[ADAPTER].detach(), layer.vera_lambda_b[ADAPTER].detach()
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
