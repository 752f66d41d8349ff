"""The divergence rule on what other trainers report."""

from __future__ import annotations

from autolora.trainers.divergence import SETTLING, DivergenceWatch

STEADY_EXAMPLES = 8
"""A loss averaged over this many examples can stand alone for the start of a run."""


class ReportWatch:
    """Watches one run by the losses that its trainer reports.

    Trainers often have no warm-up, and then the second loss may have blown up already. So the first one alone is the
    start that :class:`DivergenceWatch` compares with, where it averages over enough examples.

    Args:
        examples: training examples that a reported loss averages over.
    """

    def __init__(self, examples: int) -> None:
        self._watch = DivergenceWatch(examples)
        self._repeats = SETTLING if examples >= STEADY_EXAMPLES else 1

    def update(self, loss: float, gradient_norm: float = 1.0) -> str | None:
        """Take in one report; returns why the run has diverged, in words that count reports as steps, or None.

        Args:
            loss: mean training loss, in nats.
            gradient_norm: before clipping; left out, it never counts.
        """
        for _ in range(self._repeats - 1):
            self._watch.update(loss, gradient_norm)
        self._repeats = 1
        return self._watch.update(loss, gradient_norm)
