"""GraLoRA (arXiv 2505.20355): W in k x k blocks, each with a LoRA of rank r / k of its own. k = 1 is LoRA."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autolora.adapters.draws import FACTOR_A
from autolora.adapters.errors import VariantError
from autolora.variants.base import Variant
from autolora.variants.registry import register

if TYPE_CHECKING:
    from peft import PeftConfig
    from peft.tuners.tuners_utils import BaseTuner
    from torch import Tensor

    from autolora.adapters.layer import AdaptedLayer
    from autolora.adapters.start import Start
    from autolora.adapters.targets import LinearLayer

LARGEST_RANK_OF_TWO = 32


@dataclass(frozen=True)
class Gralora(Variant):
    """PEFT's implementation. It leaves as a plain LoRA of rank k r, exactly.

    Attributes:
        k: blocks a side; None: 2 up to rank 32, 4 above.
    """

    k: int | None = None

    def blocks(self, rank: int) -> int:
        return self.k or (2 if rank <= LARGEST_RANK_OF_TWO else 4)

    def default(self, option: str, rank: int) -> float:
        return self.blocks(rank) if option == "k" else super().default(option, rank)

    def check(self, start: Start[LinearLayer]) -> None:
        super().check(start)
        k = self.blocks(start.rank)
        if start.rank % k:
            raise VariantError(
                f"{self.name} shares the rank out over k = {k} blocks: rank {start.rank} must be divisible by it; "
                f"change space.rank, or space.options.{self.name}.k"
            )
        for name, layer in start.layers.items():
            if layer.in_features % k or layer.out_features % k:
                raise VariantError(
                    f"{self.name} cuts every layer in k = {k} blocks a side, and {name!r} is {layer.out_features} x "
                    f"{layer.in_features}: set space.options.{self.name}.k to a divisor of both"
                )

    def exported_rank(self, rank: int, layers: Mapping[str, LinearLayer]) -> int:
        return self.blocks(rank) * rank

    def lora_config(self, start: Start[LinearLayer], target_modules: list[str]) -> PeftConfig:
        from peft import GraloraConfig

        return GraloraConfig(
            r=start.rank,
            alpha=start.alpha,  # type: ignore[arg-type]  # PEFT takes any number
            gralora_k=self.blocks(start.rank),
            gralora_dropout=start.dropout,
            target_modules=target_modules,
            task_type="CAUSAL_LM",
        )

    def tuner(self) -> type[BaseTuner]:
        from autolora.adapters.kernels.gralora import AnyShapeGraloraModel

        return AnyShapeGraloraModel

    def initialize(self, start: Start[AdaptedLayer]) -> None:
        """A Kaiming-uniform block by block, bound sqrt(k / n); with k = 1 plain LoRA's very numbers."""
        import torch

        generator = start.stream(FACTOR_A)
        for layer in start.layers.values():
            a = layer.entry("gralora_A")
            k, width, rank = a.shape
            bound = width**-0.5
            drawn = torch.empty(k, rank, width).uniform_(-bound, bound, generator=generator)
            a.data.copy_(drawn.transpose(1, 2))

    def plain_factors(self, layer: AdaptedLayer) -> tuple[Tensor, Tensor]:
        """Block (i, j), from input block j to output block i, has r / k ranks: k^2 blocks have k r in all."""
        import torch

        a, b = layer.entry("gralora_A").detach(), layer.entry("gralora_B").detach()
        k, width, rank = a.shape
        share = rank // k
        plain_a, plain_b = a.new_zeros(k, k, share, k * width), b.new_zeros(k * b.shape[2], k, k, share)
        for i in range(k):
            rows = slice(i * b.shape[2], (i + 1) * b.shape[2])
            for j in range(k):
                plain_a[i, j, :, j * width : (j + 1) * width] = a[j, :, i * share : (i + 1) * share].T
                plain_b[rows, i, j] = b[i, j * share : (j + 1) * share].T
        return torch.flatten(plain_a, 0, 2), torch.flatten(plain_b, 1)


register(
    Gralora(
        name="gralora",
        title="GraLoRA",
        paper="arXiv 2505.20355",
        above_zero=("k",),
        cost=1.00,
        kind="architecture",
        lean_forward="autolora.adapters.kernels.gralora:AnyShapeGralora",
        constraints="r <= min(m, n); r, m and n divisible by k",
        export_form="rank kr",
        factored=False,
        starts_as_lora=True,  # LR-matters finds its initial Hessian in LoRA's range
    )
)
