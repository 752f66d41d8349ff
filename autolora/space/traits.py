"""What the scaling laws need to know of a variant."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from autolora import laws


@dataclass(frozen=True)
class Traits:
    """What the scaling laws need to know of a variant.

    Attributes:
        exponent: p in "eta s^p sqrt(r) is about constant".
        shift: log10 of the variant's best learning rate relative to plain LoRA's at s = 1.
        shift_sd: standard deviation of that shift, in decades.
        rank_stabilized: s = alpha / sqrt(r) instead of alpha / r.
        alpha_redundant: under Adam, alpha only rescales the learning rate: the pair is never searched together.
        alpha_law: the square-root law of alpha: "auto" is analytic where the model's width is known, "empirical" never;
            or the s that stands for it where its premise, a Kaiming-uniform A, fails.
        unit_scale: the variant is defined at s = 1 alone, so alpha is r whatever the space asks for.
    """

    exponent: float = laws.SCALE_EXPONENT
    shift: float = 0.0
    shift_sd: float = 0.15
    rank_stabilized: bool = False
    alpha_redundant: bool = False
    alpha_law: Literal["auto", "empirical"] | float = "auto"
    unit_scale: bool = False

    def scale(self, alpha: float, rank: int) -> float:
        """s of ``y = W x + s B A x``."""
        return alpha / math.sqrt(rank) if self.rank_stabilized else alpha / rank

    def unit_alpha(self, rank: int) -> float:
        """The alpha at which s = 1."""
        return math.sqrt(rank) if self.rank_stabilized else float(rank)

    def law_alpha(self, rank: int, hidden_size: int | None) -> float:
        """alpha by LoRA-alpha's square-root law.

        Analytic (Variant II) where the width n is known: alpha = sqrt(3 n r); empirical (Variant I) otherwise:
        256 sqrt(r). Rank-stabilized variants get the alpha of the same s. Where A is not Kaiming-uniform the law's
        premise fails and ``alpha_law`` is s itself.
        """
        if self.unit_scale:
            return self.unit_alpha(rank)
        if isinstance(self.alpha_law, float):
            return self.alpha_law * self.unit_alpha(rank)
        width = None if self.alpha_law == "empirical" else hidden_size
        alpha = laws.empirical_alpha(rank) if width is None else laws.analytic_alpha(rank, width)
        return alpha / math.sqrt(rank) if self.rank_stabilized else alpha
