"""A synthetic learning-rate edge: a plateau, a slow decline to its left, a cliff to its right.

The loss of a full run rises slowly to the left of a plateau of half a decade, and steeply over a fifth of a decade to
its right, beyond which training diverges. Where the cliff lies depends on rank, alpha, batch size and variant, by
exponents near those of the laws but not equal to them, and on a model's offset of which nobody is told.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from autolora import laws, variants
from autolora.search.trials import Direction
from autolora.space import Config, Range, Space
from studies.search.problem import draw

EXPONENTS = {"scale": -0.65, "rank": -0.45, "batch": 0.4}
SHIFTS = {"lora": 0.0, "dora": 0.05, "pissa": -0.5, "milora": -0.2}
"""Decades of a variant's cliff relative to plain LoRA's."""

PLATEAU = 0.5
STEEP = 0.2
FLOOR, UNTRAINED = 2.0, 6.0
NOISE = 0.003
"""Relative standard deviation over seeds; ten times that on the way down the cliff."""


SPACE = Space(
    learning_rate=Range(low=1e-6, high=1e-1), batch_size=[16, 64], rank=[8, 32], alpha="rank", hidden_size=2048
)


@dataclass(frozen=True, eq=False)
class Edge:
    """One such surface.

    Attributes:
        label: part of the name.
        offset: decades by which the model's cliff lies above where the laws expect the plateau's right end.
        bias: decades by which cliff and plateau of a run cut to a tenth lie above those of a full run; below where
            negative.
    """

    label: str
    offset: float = 0.0
    bias: float = 0.0
    variants: tuple[str, ...] = tuple(SHIFTS)
    space: Space = SPACE
    rungs: tuple[float, ...] = (1 / 27, 1 / 9, 1 / 3, 1.0)
    direction: Direction = "minimize"
    examples: int | None = 50_000

    @property
    def name(self) -> str:
        return f"edge/{self.label}"

    def cliff(self, variant: str, config: Config, fraction: float = 1.0) -> float:
        """log10 of the learning rate where the plateau ends."""
        scale = variants.get(variant).traits.scale(config.alpha, config.rank)
        exponent = -0.5 if variants.get(variant).traits.alpha_redundant else EXPONENTS["scale"]
        return (
            laws.log_centre(self.space.hidden_size, self.examples)
            + PLATEAU / 2
            + self.offset
            + SHIFTS[variant]
            + exponent * math.log10(scale)
            + EXPONENTS["rank"] * math.log10(config.rank)
            + EXPONENTS["batch"] * math.log10(config.batch_size)
            - self.bias * math.log10(fraction)
        )

    def loss(self, variant: str, config: Config, fraction: float = 1.0) -> float:
        """Infinite where training diverges."""
        z = math.log10(config.learning_rate) - self.cliff(variant, config, fraction)
        if z > STEEP:
            return math.inf
        floor = FLOOR * (1 + 0.01 * math.log2(config.batch_size / 16) - 0.005 * math.log2(config.rank / 8))
        left, right = max(0.0, -PLATEAU - z), max(0.0, z)
        level = floor + 0.4 * (fraction**-0.4 - 1) + 0.01 * (z + PLATEAU / 2) ** 2
        return min(UNTRAINED, level + 0.6 * left**1.5 + (UNTRAINED - FLOOR) * (right / STEEP) ** 2)

    def evaluate(self, variant: str, config: Config, fraction: float, seed: int) -> float | None:
        loss = self.loss(variant, config, fraction)
        if math.isinf(loss):
            return None
        beyond = math.log10(config.learning_rate) > self.cliff(variant, config, fraction)
        return loss * (1 + NOISE * (10 if beyond else 1) * draw(seed, variant, config, round(fraction, 6)))

    def truth(self, variant: str, config: Config) -> float | None:
        loss = self.loss(variant, config)
        return None if math.isinf(loss) else loss

    def diverges_at(self, variant: str, config: Config) -> float:
        """At 2% of a run, or, where only longer runs diverge, at the next rung."""
        if not math.isinf(self.loss(variant, config)):
            return 1.0
        survived = [rung for rung in self.rungs if not math.isinf(self.loss(variant, config, rung))]
        return 0.02 if not survived else next(rung for rung in self.rungs if rung > max(survived))

    def best(self, variant: str) -> float:
        return self._best[variant]

    def worst(self, variant: str) -> float:
        return UNTRAINED

    def noise(self, variant: str) -> float:
        return NOISE * self.best(variant)

    @cached_property
    def _best(self) -> dict[str, float]:
        found = {}
        for variant in self.variants:
            scores = []
            for batch in self.space.batch_size:
                for rank in self.space.rank:
                    cliff = self.cliff(variant, Config(1.0, batch, rank, rank))
                    rates = 10 ** np.linspace(cliff - PLATEAU, cliff, 501)
                    scores += [self.loss(variant, Config(float(rate), batch, rank, rank)) for rate in rates]
            found[variant] = min(scores)
        return found
