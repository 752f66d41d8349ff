"""The optimizer's weight decay."""

from __future__ import annotations

from autolora.space.dimension import register
from autolora.space.setting import Setting


class WeightDecay(Setting):
    """Decoupled, as AdamW's. The papers' protocols take none (LR-matters, arXiv 2602.04998): 0 is preferred."""

    name = "weight_decay"
    about = "the optimizer's weight decay; searched only if it is named."
    label = "weight decay"
    brief = "decay"
    aliases = ("weight_decay",)
    sets = "weight_decay"
    preferred = standard = 0.0
    odds = 2.0


register(WeightDecay())
