"""ReLoRA (arXiv 2307.05695): LoRA in phases; A and the optimizer start over after each, B at 0.

What it learns, s sum_i B_i A_i, has the rank of all phases together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from autolora.adapters.attachment import attachment
from autolora.adapters.draws import draw_kaiming, random_stream
from autolora.adapters.errors import VariantError
from autolora.space import Traits
from autolora.variants.base import Variant
from autolora.variants.registry import register

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from torch import Tensor

    from autolora.adapters.kernels.relora import Phased
    from autolora.adapters.layer import AdaptedLayer
    from autolora.adapters.start import Start
    from autolora.adapters.targets import LinearLayer


@dataclass(frozen=True)
class Relora(Variant):
    """The paper merges an ended phase into W. Here its factors stay beside W, frozen, which is the same function and is
    exact on a base of any precision.

    Attributes:
        phases: of equal length.
        warmup: of the learning rate after a restart, as a share of a phase.
    """

    phases: int = 3
    warmup: float = 0.1

    def check(self, start: Start[LinearLayer]) -> None:
        super().check(start)
        if not 0 <= self.warmup <= 1:
            raise VariantError(
                f"{self.name} got warmup {self.warmup:g}, a share of a phase: set "
                f"space.options.{self.name}.warmup to between 0 and 1"
            )

    def exported_rank(self, rank: int, layers: Mapping[str, LinearLayer]) -> int:
        """That of all phases together."""
        return self.phases * rank

    def initialize(self, start: Start[AdaptedLayer]) -> None:
        """Plain LoRA's start, with room for the phases."""
        from autolora.adapters.kernels.relora import Phased

        for layer in start.layers.values():
            layer.install(Phased(layer, self.phases))

    def plain_factors(self, layer: AdaptedLayer) -> tuple[Tensor, Tensor]:
        a, b = _branch(layer).factors(layer)
        return a.detach(), b.detach()

    def optimizer(self, model: PeftModel, learning_rate: float, weight_decay: float = 0.0) -> torch.optim.Optimizer:
        """AdamW, restarted at every phase's end but the run's."""
        from autolora.adapters.kernels.relora import ReloraAdamW

        record = attachment(model)
        horizon = record.horizon
        assert horizon is not None, "attach asks for it"
        ends = {horizon * phase // self.phases: phase for phase in range(1, self.phases)}
        ends.pop(0, None)  # of phases without a step
        return ReloraAdamW(
            partial(_end_phase, model),
            ends,
            math.ceil(self.warmup * horizon / self.phases),
            record.seed,
            self.parameter_groups(model, learning_rate),
            learning_rate,
            weight_decay=weight_decay,
        )


def _end_phase(model: PeftModel, phase: int, seed: int) -> None:
    """Keep A and B as this phase's, and start over."""
    generator = random_stream(seed, f"phase {phase}")
    for layer in attachment(model).layers.values():
        _branch(layer).end(layer, phase)
        draw_kaiming(layer.a, generator)
        layer.b.data.zero_()


def _branch(layer: AdaptedLayer) -> Phased:
    from autolora.adapters.kernels.relora import Phased

    branch = layer.branch
    assert isinstance(branch, Phased)
    return branch


register(
    Relora(
        name="relora",
        title="ReLoRA",
        paper="arXiv 2307.05695",
        revision=2,
        above_zero=("phases",),
        cost=1.06,
        kind="optimizer",
        needs=("horizon",),
        optimizer_name="AdamW, restarted and warmed up again at every phase's end",
        export_form="rank kr",
        # Each phase is LoRA's; no published best rate for fine-tuning was found.
        traits=Traits(shift=0.0, shift_sd=0.3),
        starts_as_lora=True,
        own_forward=True,
    )
)
