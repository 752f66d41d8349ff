"""RandLoRA (arXiv 2502.00987): an update of full rank from frozen random bases of rank r, shared by all layers.

W' = W + s sum_i B_i Lambda_i A Gamma_i, i = 1 ... ceil(min(m, n) / r): trained are the diagonals Lambda_i (r), from 0,
and Gamma_i (min(m, n)), from a constant. A smaller r has more of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolora.space import Traits
from autolora.variants.base import Variant
from autolora.variants.registry import register

if TYPE_CHECKING:
    from peft import PeftConfig

    from autolora.adapters.start import Start
    from autolora.adapters.targets import LinearLayer

RECOMMENDED_SCALE = 20.0
"""s = alpha / r, as the authors set it in PEFT."""
LARGEST_KEY = 2**31
"""Keys stay below it: every reader of JSON takes them for whole numbers."""


@dataclass(frozen=True)
class Randlora(Variant):
    """PEFT's implementation, the authors' own, on the bases that PEFT draws from ``projection_prng_key``.

    The key is of this seed. It leaves with the adapter, and so do the bases, since PEFT draws them in bfloat16 where
    the machine has it and in float16 elsewhere.
    """

    def lora_config(self, start: Start[LinearLayer], target_modules: list[str]) -> PeftConfig:
        from peft import RandLoraConfig

        return RandLoraConfig(
            r=start.rank,
            randlora_alpha=start.alpha,  # type: ignore[arg-type]  # PEFT takes any number
            randlora_dropout=start.dropout,
            target_modules=target_modules,
            projection_prng_key=start.stream("bases").initial_seed() % LARGEST_KEY,
            save_projection=True,
            task_type="CAUSAL_LM",
        )


register(
    Randlora(
        name="randlora",
        title="RandLoRA",
        paper="arXiv 2502.00987",
        cost=2.34,
        kind="architecture",
        # LR-matters places it a bit below LoRA by curvature; the runs of studies/curves, at s = 20, 0.1 decades above
        # where LoRA at that s would be.
        traits=Traits(shift_sd=0.4, alpha_law=RECOMMENDED_SCALE),
        export_form="native",
        factored=False,
    )
)
