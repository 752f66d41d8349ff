"""HiRA (ICLR 2025, OpenReview TwJrTz9cRS): W' = W + W o (B A), an update of high rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolora.adapters.draws import FACTOR_A, draw_kaiming
from autolora.space import Traits
from autolora.variants.base import Variant
from autolora.variants.registry import register

if TYPE_CHECKING:
    from peft import PeftConfig
    from peft.tuners.tuners_utils import BaseTuner

    from autolora.adapters.layer import AdaptedLayer
    from autolora.adapters.start import Start
    from autolora.adapters.targets import LinearLayer


@dataclass(frozen=True)
class Hira(Variant):
    """PEFT's implementation, with a leaner forward pass."""

    def lora_config(self, start: Start[LinearLayer], target_modules: list[str]) -> PeftConfig:
        from peft import HiraConfig

        return HiraConfig(
            r=start.rank, hira_dropout=start.dropout, target_modules=target_modules, task_type="CAUSAL_LM"
        )

    def tuner(self) -> type[BaseTuner]:
        from autolora.adapters.kernels.hira import LeanHiraModel

        return LeanHiraModel

    def initialize(self, start: Start[AdaptedLayer]) -> None:
        """A Kaiming-uniform, plain LoRA's very numbers; B = 0."""
        generator = start.stream(FACTOR_A)
        for layer in start.layers.values():
            draw_kaiming(layer.entry("hira_A"), generator)


register(
    Hira(
        name="hira",
        title="HiRA",
        paper="OpenReview TwJrTz9cRS",
        cost=1.49,
        kind="architecture",
        constraints="r <= min(m, n), alpha = r",
        # PEFT's benchmarks take 5 and 45 times LoRA's rate, the authors ten; studies/curves says 4 times.
        traits=Traits(shift=0.8, shift_sd=0.35, unit_scale=True),
        export_form="native",
        factored=False,
        lean_forward="autolora.adapters.kernels.hira:LeanHira",
    )
)
