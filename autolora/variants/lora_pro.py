"""LoRA-Pro (arXiv 2407.18242): plain LoRA; AdamW gets (g_A', g_B') with s (B g_A' + g_B' A) closest to G = dL/dW.

Of all such pairs it is the one nearest to (g_A, g_B), which a Sylvester equation in r x r finds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolora.space import Traits
from autolora.variants.registry import register
from autolora.variants.rplora import Rplora

if TYPE_CHECKING:
    from autolora.adapters.kernels.preconditioned import Precondition


@dataclass(frozen=True)
class LoraPro(Rplora):
    """As :class:`~autolora.variants.rplora.Rplora`, with other gradients.

    Adam's moments are those of g_A' and g_B': of the update of W itself they would take m n numbers each.

    Attributes:
        damping: of the Grams, relative to their mean diagonal. The default is above float32's rounding; without any, a
            Gram that is singular has no inverse.
    """

    damping: float = 1e-5

    def precondition(self) -> Precondition:
        from autolora.adapters.kernels.preconditioned import lora_pro

        return lora_pro


register(
    LoraPro(
        name="lora_pro",
        title="LoRA-Pro",
        paper="arXiv 2407.18242",
        above_zero=("damping",),
        cost=1.01,
        kind="optimizer",
        optimizer_name="AdamW on the gradients whose update of W is closest to the full one",
        # Adam sets the size of a step, as LoRA's; no published best rate was found, studies/curves says 0.2 decades.
        traits=Traits(shift=0.2, shift_sd=0.35),
        starts_as_lora=True,
    )
)
