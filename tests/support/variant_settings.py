"""How the contract tests attach and train a variant."""

from __future__ import annotations

import torch
from peft import PeftModel

from autolora.variants import get

RANK, HORIZON = 4, 20


def alpha_of(name: str, rank: int) -> float:
    """s = 2, but for variants that are defined at s = 1 alone."""
    return rank if get(name).traits.unit_scale else 2.0 * rank


def make_optimizer(name: str, model: PeftModel) -> torch.optim.Optimizer:
    """At a learning rate that is as brisk for every variant as 5e-3 is for LoRA at s = 1."""
    variant = get(name)
    scale = variant.traits.scale(alpha_of(name, RANK), RANK)
    rate = 5e-3 * 10**variant.traits.shift / scale**variant.traits.exponent
    return variant.optimizer(model, rate)
