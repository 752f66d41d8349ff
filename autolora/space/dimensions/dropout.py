"""Dropout on the adapter's input."""

from __future__ import annotations

from autolora.space.dimension import register
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


register(Dropout())
