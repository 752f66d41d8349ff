"""HiRA (ICLR 2025, OpenReview TwJrTz9cRS): W' = W + W o (B A), an update of high rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autolora.space import Traits
from autolora.variants.attachment import FACTOR_A, attachment, draw_kaiming, random_stream
from autolora.variants.base import Variant, register
from autolora.variants.subtraction import ADAPTER

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True)
class Hira(Variant):
    """PEFT's implementation, with a leaner forward pass."""

    def lora_config(self, rank: int, alpha: float, dropout: float, target_modules: list[str]) -> Any:
        from peft import HiraConfig

        return HiraConfig(r=rank, hira_dropout=dropout, target_modules=target_modules, task_type="CAUSAL_LM")

    def initialise(self, model: PeftModel, seed: int, batches: Any, horizon: int | None) -> None:
        """A Kaiming-uniform, plain LoRA's very numbers; B = 0."""
        from autolora.variants.kernels.hadamard import is_plain
        from autolora.variants.kernels.hira import LeanHira

        generator = random_stream(seed, FACTOR_A)
        for layer in attachment(model).layers.values():
            draw_kaiming(layer.hira_A[ADAPTER], generator)
            if is_plain(layer.get_base_layer()):  # else PEFT, which knows how to undo a quantisation, does it all
                layer.__class__ = LeanHira


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
    )
)
