"""ReLoRA (arXiv 2307.05695): LoRA in phases, W <- W + s B A at the end of each; A and the optimizer start over, B = 0.

What it learns has the rank of all phases together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from autolora.adapters.attachment import anchor, attachment
from autolora.adapters.draws import draw_kaiming, random_stream
from autolora.adapters.errors import VariantError
from autolora.adapters.subtraction import put_residual
from autolora.space import Traits
from autolora.variants.base import Variant
from autolora.variants.registry import register

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

    from autolora.adapters.layer import AdaptedLayer
    from autolora.adapters.start import Start
    from autolora.adapters.targets import LinearLayer


@dataclass(frozen=True)
class Relora(Variant):
    """Ended phases are the anchors of a start that is subtracted: (A_i, -B_i) of each, zeros for those to come.

    W is merged in float32 and kept in the base's precision: of a bfloat16 base a phase changes what exceeds half a
    unit in the last place.

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
        import torch

        anchors = {}
        for name, layer in start.layers.items():
            a, b = layer.a, layer.b
            earlier = (self.phases - 1) * len(a)
            anchors[name] = torch.zeros(earlier, a.shape[1]), torch.zeros(len(b), earlier)
        anchor(start.model, anchors)

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
    """Add s B A to the weights, note A and -B as this phase's anchors, and start over."""
    record = attachment(model)
    generator = random_stream(seed, f"phase {phase}")
    for name, layer in record.layers.items():
        a, b = layer.a, layer.b
        kept = record.subtracted[name]
        own = slice((phase - 1) * len(a), phase * len(a))
        kept.a0[own], kept.b0[:, own] = a.detach(), -b.detach()
        put_residual(layer, kept)
        draw_kaiming(a, generator)
        b.data.zero_()


register(
    Relora(
        name="relora",
        title="ReLoRA",
        paper="arXiv 2307.05695",
        above_zero=("phases",),
        cost=1.04,
        kind="optimizer",
        needs=("horizon",),
        optimizer_name="AdamW, restarted and warmed up again at every phase's end",
        export_form="rank kr",
        # Each phase is LoRA's; no published best rate for fine-tuning was found.
        traits=Traits(shift=0.0, shift_sd=0.3),
        starts_as_lora=True,
    )
)
