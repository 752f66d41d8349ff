"""The share of the optimizer steps that the learning rate warms up over."""

from __future__ import annotations

from autolora.space.dimension import register
from autolora.space.setting import Setting


class WarmupRatio(Setting):
    """The papers' protocols take 3% (LR-matters, arXiv 2602.04998): the nearest choice to it is preferred."""

    name = "warmup_ratio"
    about = "share of the optimizer steps spent warming up, below 1; searched only if it is named."
    label = "warm-up"
    brief = "warm-up"
    aliases = ("warmup_ratio",)
    sets = "warmup_ratio"
    below = 1.0
    preferred = standard = 0.03


register(WarmupRatio())
