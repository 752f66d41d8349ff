"""Dropout on the adapter's input."""

from __future__ import annotations

from autolora.space.config import Config
from autolora.space.dimension import Scope, register
from autolora.space.domain import corners
from autolora.space.setting import Setting


class Dropout(Setting):
    """It hardly matters in the papers' tables (LR-matters, arXiv 2602.04998), and ruins some starts: 0 is preferred."""

    name = "dropout"
    about = "dropout on the adapter's input, below 1; searched only if it is named."
    label = "dropout"
    brief = "dropout"
    aliases = ("dropout", "lora_dropout")
    sets = "dropout"
    at_attach = True
    below = 1.0
    preferred = standard = 0.0

    def largest(self, scope: Scope, config: Config) -> float:
        """Some variants have a faster forward pass without dropout."""
        return max(corners(self.domain(scope, config)))

    def cost_key(self, config: Config) -> bool:
        return bool(config.value(self.name))


register(Dropout())
