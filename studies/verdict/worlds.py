"""Variants that differ in their best learning rate, and in some studies also in how good they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from autolora import laws, variants
from autolora.space import Config, Range, Space
from studies.search.problem import draw

SPACE = Space(
    learning_rate=Range(low=1e-6, high=1e-1), batch_size=[16, 64], rank=[8, 32], alpha="law", hidden_size=2048
)
EXAMPLES = 50_000
VARIANTS = ("lora", "dora", "pissa", "milora")
FLOOR, UNTRAINED = 2.0, 6.0
NOISE, SHORT_NOISE = 0.01, 0.015
"""Relative standard deviation over seeds, of a full run and of shorter ones."""
OFFSET_SD, SHIFT_SD = 0.35, 0.2
"""Decades by which the model's centre lies off the laws', and a variant's off its own shift."""
DRIFT = 0.1
"""Decades by which the best rate of a run cut to a tenth is higher."""


def bowl(d: float) -> float:
    """2% lost at 0.45 decades."""
    return 0.1 * d * d


def narrow(d: float) -> float:
    """2% lost at a quarter of a decade."""
    return 0.32 * d * d


def edge(d: float) -> float:
    """Flat over half a decade, a slow decline to the left, a cliff to the right."""
    left, right = max(0.0, -0.25 - d), max(0.0, d - 0.25)
    return 0.15 * left**1.5 + 2.0 * (right / 0.3) ** 2


SHAPES: Mapping[str, Callable[[float], float]] = {"bowl": bowl, "narrow": narrow, "edge": edge}


@dataclass(frozen=True)
class World:
    """One model and task.

    Attributes:
        shape: of the score over the learning rate, see SHAPES.
        seed: of the model's offset, the variants' shifts and the noise.
        gains: share by which a variant's best score is better than plain LoRA's.
    """

    shape: str
    seed: int
    gains: Mapping[str, float] = field(default_factory=dict)

    def centre(self, variant: str, config: Config) -> float:
        """log10 of the best learning rate of a full run."""
        traits = variants.get(variant).traits
        exponent = -0.5 if traits.alpha_redundant else -0.65
        offset = OFFSET_SD * draw(self.seed, "offset")
        shift = traits.shift + (SHIFT_SD * draw(self.seed, "shift", variant) if variant != "lora" else 0.0)
        return (
            laws.log_centre(SPACE.hidden_size, EXAMPLES)
            + offset
            + shift
            + exponent * math.log10(traits.scale(config.alpha, config.rank))
            - 0.45 * math.log10(config.rank)
            + 0.4 * math.log10(config.batch_size)
        )

    def loss(self, variant: str, config: Config, fraction: float = 1.0) -> float:
        """Without noise."""
        d = math.log10(config.learning_rate) - self.centre(variant, config) + DRIFT * math.log10(fraction)
        settings = 0.004 * math.log2(config.batch_size / 16) - 0.002 * math.log2(config.rank / 32)
        floor = FLOOR * (1 - self.gains.get(variant, 0.0))
        level = floor * (1 + settings + SHAPES[self.shape](d)) + 0.4 * (fraction**-0.4 - 1)
        return min(UNTRAINED, level)

    def score(self, variant: str, config: Config, fraction: float, seed: int) -> float | None:
        """The score of one training; None if it diverges."""
        loss = self.loss(variant, config, fraction)
        if loss >= 2 * FLOOR and math.log10(config.learning_rate) > self.centre(variant, config):
            return None
        sd = NOISE if fraction == 1.0 else SHORT_NOISE
        noise = draw(self.seed, seed, variant, config, round(fraction, 6))
        return float(loss + FLOOR * sd * noise)

    def difference(self, variant: str, reference: str = "lora") -> float:
        """What the best settings of two variants differ by."""
        return FLOOR * (self.gains.get(reference, 0.0) - self.gains.get(variant, 0.0))
