"""What LoHa and LoKr share: PEFT has both from LyCORIS, for ``nn.Linear`` alone and with dropout of another kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autolora.variants.attachment import adapter_parameters, attachment, draw_kaiming, random_stream
from autolora.variants.base import Variant, VariantError
from autolora.variants.targets import describe

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import nn

    from autolora.variants.targets import LinearLayer


@dataclass(frozen=True)
class Lycoris(Variant):
    """PEFT's implementation and start, drawn from this seed."""

    def check(self, model: nn.Module, layers: Mapping[str, LinearLayer], rank: int, dropout: float) -> None:
        super().check(model, layers, rank, dropout)
        for name, layer in layers.items():
            if layer.transposed:
                raise VariantError(
                    f"PEFT has {self.title} for nn.Linear and not for Conv1D, as layer {name!r} of {describe(model)} "
                    f"is: {self.name} cannot be trained on this model"
                )
        if dropout > 0:
            raise VariantError(
                f"{self.name} must be trained without dropout, which PEFT has for it on rows of the update and not on "
                f"its input; got {dropout:g}"
            )

    def initialise(self, model: PeftModel, seed: int, batches: Any, horizon: int | None) -> None:
        """Kaiming-uniform, of bound 1/sqrt(columns), in float32; what PEFT starts at 0 stays there."""
        generator = random_stream(seed, "factors")
        for layer in attachment(model).layers.values():
            for factor in adapter_parameters(layer).values():
                if factor.any():
                    draw_kaiming(factor, generator)
