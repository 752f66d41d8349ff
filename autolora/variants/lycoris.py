"""What LoHa and LoKr share: PEFT has both from LyCORIS, for ``nn.Linear`` alone and with dropout of another kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolora.adapters.draws import draw_kaiming
from autolora.adapters.errors import VariantError
from autolora.variants.base import Variant

if TYPE_CHECKING:
    from autolora.adapters.layer import AdaptedLayer
    from autolora.adapters.start import Start
    from autolora.adapters.targets import LinearLayer


@dataclass(frozen=True)
class Lycoris(Variant):
    """PEFT's implementation and start, drawn from this seed."""

    def check(self, start: Start[LinearLayer]) -> None:
        super().check(start)
        if start.dropout > 0:
            raise VariantError(
                f"{self.name} must be trained without dropout, which PEFT has for it on rows of the update and not on "
                f"its input; got {start.dropout:g}"
            )

    def initialize(self, start: Start[AdaptedLayer]) -> None:
        """Kaiming-uniform, of bound 1/sqrt(columns), in float32; what PEFT starts at 0 stays there."""
        generator = start.stream("factors")
        for layer in start.layers.values():
            for factor in layer.parameters.values():
                if factor.any():
                    draw_kaiming(factor, generator)
