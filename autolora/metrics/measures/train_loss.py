"""Training loss at the end: the mean over the last tenth of the optimizer steps so far."""

from __future__ import annotations

from statistics import fmean

from autolora.metrics.measures.measure import Facts, Measure, register

TAIL = 10
"""One in so many steps counts: the last ones, as the loss of one batch says little."""


def train_loss(facts: Facts) -> float | None:
    """Mean of the last losses, at least one; None if none is known."""
    losses = list(facts.losses)
    return fmean(losses[-max(1, len(losses) // TAIL) :]) if losses else None


register(Measure("train_loss", "minimize", train_loss))
