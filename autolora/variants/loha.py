"""LoHa, or FedPara (arXiv 2108.06098): W' = W + s (B1 A1) o (B2 A2), of a rank up to r^2."""

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


@dataclass(frozen=True)
class Loha(Lycoris):
    """PEFT's implementation, with a leaner forward pass. B2 A2 starts at 0; four factors train."""

    def lora_config(self, start: Start[LinearLayer], target_modules: list[str]) -> PeftConfig:
        from peft import LoHaConfig

        return LoHaConfig(
            r=start.rank,
            alpha=start.alpha,  # type: ignore[arg-type]  # PEFT takes any number
            target_modules=target_modules,
            task_type="CAUSAL_LM",
        )

    def tuner(self) -> type[BaseTuner]:
        from autolora.adapters.kernels.loha import LeanLohaModel

        return LeanLohaModel


register(
    Loha(
        name="loha",
        title="LoHa",
        paper="arXiv 2108.06098",
        cost=1.63,
        kind="architecture",
        constraints="r <= min(m, n), no Conv1D, no dropout",
        # A step on B2 moves W by about 1 / (3 sqrt(r)) of what one on LoRA's B does at first, and by more as all grow:
        # studies/curves has it 0.2 decades above LoRA.
        traits=Traits(shift=0.3, shift_sd=0.4, alpha_law=1.0),
        export_form="native",
        factored=False,
        linear_only=True,
        bits=(8,),  # PEFT forms the update in the shape of the stored weight, which 4 bits fold up
        lean_forward="autolora.adapters.kernels.loha:LeanLoha",
    )
)
