"""A tuned learning rate for a longer or shorter run: tune short, train long."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from autolora import laws

TUNED_SD = 0.1
"""Decades by which a tuned rate may lie off the best: plateaus within 2% of it are about 0.3 wide (LR-matters)."""
INTERVAL = 0.9


@dataclass(frozen=True)
class Carried:
    """A learning rate carried to another length of training by the law of length.

    Attributes:
        tuned: the learning rate that was tuned on ``before`` training examples.
        before, after: training examples of the tuned run, and of the one that it is carried to.
        learning_rate: at the same batch size, rank and alpha: ``tuned (after / before)^LENGTH_EXPONENT``.
        low, high: between which the best one lies with 90% probability, by how well the exponent is known, and the
            tuned rate.
    """

    tuned: float
    before: int
    after: int
    learning_rate: float
    low: float
    high: float

    @classmethod
    def of(cls, tuned: float, before: int, after: int) -> Carried:
        """Carry a learning rate from ``before`` to ``after`` training examples."""
        ratio = after / before
        sd = math.hypot(TUNED_SD, laws.LENGTH_SD * math.log10(ratio))
        belief = NormalDist(math.log10(tuned) + laws.carried(ratio), sd)
        low, high = (belief.inv_cdf(share) for share in (0.5 - INTERVAL / 2, 0.5 + INTERVAL / 2))
        return cls(tuned, before, after, 10**belief.mean, 10**low, 10**high)

    @property
    def words(self) -> str:
        """On one line."""
        return (
            f"learning rate {self.tuned:.3g} at {self.before:,} examples is carried to {self.learning_rate:.3g} at "
            f"{self.after:,} (90%: {self.low:.3g} to {self.high:.3g}), by the law of length"
        )
