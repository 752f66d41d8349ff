"""LoKr (arXiv 2309.14859): W' = W + s W1 (x) W2, a Kronecker product, of any rank.

W1 (a, c) and W2 (b, d) with m = a b and n = c d. W2 is B A of rank r where r is below half of its larger side, and
itself a parameter otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolora.space import Traits
from autolora.variants.lycoris import Lycoris
from autolora.variants.registry import register

if TYPE_CHECKING:
    from peft import PeftConfig
    from peft.tuners.tuners_utils import BaseTuner

    from autolora.adapters.start import Start
    from autolora.adapters.targets import LinearLayer

NEAR_SQUARE_ROOT = -1
"""What PEFT calls it."""
SQUARE_ROOT = 64
"""Of widths in the thousands, about: where a search over the factor starts."""


@dataclass(frozen=True)
class Lokr(Lycoris):
    """PEFT's implementation, with a leaner forward pass. W1 starts at 0.

    Attributes:
        factor: a and c, where they divide m and n, or the next smaller divisors; None: the divisors next below the
            square roots, which trains the fewest parameters.
    """

    factor: int | None = None

    def default(self, option: str, rank: int) -> float:
        return SQUARE_ROOT if option == "factor" else super().default(option, rank)

    def lora_config(self, start: Start[LinearLayer], target_modules: list[str]) -> PeftConfig:
        from peft import LoKrConfig

        return LoKrConfig(
            r=start.rank,
            alpha=start.alpha,  # type: ignore[arg-type]  # PEFT takes any number
            decompose_factor=self.factor or NEAR_SQUARE_ROOT,
            target_modules=target_modules,
            task_type="CAUSAL_LM",
        )

    def tuner(self) -> type[BaseTuner]:
        from autolora.adapters.kernels.lokr import LeanLokrModel

        return LeanLokrModel


register(
    Lokr(
        name="lokr",
        title="LoKr",
        paper="arXiv 2309.14859",
        above_zero=("factor",),
        cost=1.05,
        kind="architecture",
        constraints="r <= min(m, n), no Conv1D, no dropout",
        # PEFT's benchmark takes 30 times LoRA's rate, at factor 4; studies/curves says 3 times.
        traits=Traits(shift=0.6, shift_sd=0.4, alpha_law=1.0),
        export_form="native",
        factored=False,
        linear_only=True,
        bits=(8,),  # PEFT forms the update in the shape of the stored weight, which 4 bits fold up
        lean_forward="autolora.adapters.kernels.lokr:LeanLokr",
    )
)
