"""DoRA (arXiv 2402.09353): W' = mag o (W + s B A) / ||W + s B A||, norms by output row, detached in the gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolora.adapters.errors import VariantError
from autolora.adapters.renaming import misread
from autolora.adapters.targets import describe
from autolora.variants.base import Variant
from autolora.variants.registry import register

if TYPE_CHECKING:
    from collections.abc import Collection

    from peft import PeftConfig

    from autolora.adapters.layer import AdaptedLayer
    from autolora.adapters.start import Start
    from autolora.adapters.targets import LinearLayer


@dataclass(frozen=True)
class Dora(Variant):
    """PEFT's implementation, with magnitudes in float32, rows of zero norm made safe, and a leaner forward pass."""

    def check(self, start: Start[LinearLayer]) -> None:
        super().check(start)
        if names := misread(start.model, start.layers):
            ends = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in names))
            raise VariantError(
                f"{self.name} leaves in PEFT's format, which takes {names[0]!r} of {describe(start.model)} for "
                f"experts: set adapter.exclude_modules: [{ends}], or leave {self.name} out of variants"
            )

    def lora_config(self, start: Start[LinearLayer], target_modules: list[str]) -> PeftConfig:
        config = super().lora_config(start, target_modules)
        config.use_dora = True
        return config

    def initialize(self, start: Start[AdaptedLayer]) -> None:
        """Set mag to the row norms of W and give rows without a direction a random one.

        A row of norm 0 is 0 / 0 in PEFT (peft#2049). With a random row of B its norm is positive and, mag being 0, the
        row's output is exactly 0 as before; mag and B learn from there. This holds in plain PEFT after export, too.
        """
        import torch

        from autolora.adapters.kernels.dora import GramDora
        from autolora.adapters.kernels.inplace import overwritten

        # On an outline no pass can be run.
        outline = any(layer.base_layer.weight.is_meta for layer in start.layers.values())
        changed: Collection[str] = () if outline else overwritten(start.model, start.layers)
        generator = start.stream("dora zero rows")
        for name, layer in start.layers.items():
            lean = GramDora(layer, name in changed)
            layer.install(lean)
            magnitude, b = layer.entry("lora_magnitude_vector").weight, layer.b
            magnitude.data = lean.squares.sqrt()  # PEFT took them in the base's precision
            without_direction = magnitude.data == 0
            if not without_direction.is_meta and without_direction.any():
                bound = b.shape[1] ** -0.5
                rows = torch.empty(b.shape).uniform_(-bound, bound, generator=generator).to(b.device)
                b.data[without_direction] = rows[without_direction]


# Shares plain LoRA's initial Hessian and best learning rate within 0.1 decades (LR-matters, arXiv 2602.04998).
register(
    Dora(
        name="dora",
        title="DoRA",
        paper="arXiv 2402.09353",
        cost=1.05,
        kind="architecture",
        starts_as_lora=True,
        export_form="native",
        lean_forward="autolora.adapters.kernels.dora:GramDora",
        peft_options={"use_dora": True},
        loading=(
            "Load it with PEFT, as PeftModel.from_pretrained(base, folder). The load_adapter of a transformers model "
            "leaves DoRA's magnitudes out, with a warning (seen with transformers 5.23): its outputs are others."
        ),
    )
)
