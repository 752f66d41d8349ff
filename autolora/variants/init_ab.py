"""Init[AB] (arXiv 2505.23194): A and B both start uniform in +-sqrt(gamma / n), n = in_features; subtracted from W.

Init[AB+] is the same without subtracting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolora.adapters.attachment import attachment, start_from
from autolora.space import Traits
from autolora.variants.base import Variant
from autolora.variants.registry import register

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor

    from autolora.adapters.layer import AdaptedLayer
    from autolora.adapters.start import Start


@dataclass(frozen=True)
class InitAB(Variant):
    """Neither factor is zero.

    Attributes:
        gamma_a, gamma_b: variances of the two relative to plain LoRA's A, whose start gamma_a = 1 is. The unified study
            (arXiv 2601.22708) takes 16 for both.
    """

    gamma_a: float = 1.0
    gamma_b: float = 1.0

    def initialize(self, start: Start[AdaptedLayer]) -> None:
        import torch

        generator = start.stream("lora_B")
        starts = {}
        for name, layer in start.layers.items():
            a, b = layer.a.detach(), layer.b
            bound = (self.gamma_b / layer.in_features) ** 0.5
            drawn = torch.empty(b.shape).uniform_(-bound, bound, generator=generator)
            starts[name] = (self.gamma_a**0.5 * a, drawn)
        self.place(start.model, starts)

    def place(self, model: PeftModel, starts: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Start there with the model's outputs unchanged."""
        start_from(model, starts)


@dataclass(frozen=True)
class InitABPlus(InitAB):
    """Init[AB] that leaves the base as it is, so that training starts from a perturbed model."""

    def place(self, model: PeftModel, starts: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        for name, factors in starts.items():
            attachment(model).layers[name].set_factors(*factors)


register(
    InitAB(
        name="init_ab",
        title="Init[AB]",
        paper="arXiv 2505.23194",
        cost=1.00,
        # LR-matters' tables put its best learning rate within 0.1 decades of LoRA's.
        traits=Traits(shift_sd=0.2),
        export_form="rank 2r",
        subtracts=True,
    )
)
register(
    InitABPlus(
        name="init_ab_plus",
        title="Init[AB+]",
        paper="arXiv 2505.23194",
        cost=0.99,
        # As Init[AB], whose factors it shares; so say the runs of studies/curves, at s = 1. With alpha by the law its
        # perturbation, which is not subtracted, would be s times larger and wreck the model.
        traits=Traits(shift_sd=0.25, alpha_law=1.0),
        moves_at_start=True,
    )
)
