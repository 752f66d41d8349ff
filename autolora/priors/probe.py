"""What a learning-rate range test says about the best learning rate of a full run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from autolora.space import Config

STEPS, DECADES_A_STEP = 40, 0.1
WINDOW = 5
"""Steps whose losses are averaged: those of single batches are noisy."""
START = 3
"""Steps that define the loss before any training."""
CLEAR = 6.0
"""A fall and a rise of this many standard deviations of the smoothed loss exceed noise."""
RISE = 0.1
"""The edge is where the smoothed loss has risen again by this share of its whole fall."""


BELOW = 1.8
"""Decades below the prior's mode at which the test starts; it ends as much, and a little more, above."""


def first_step(mode: Config) -> Config:
    """Where the range test of a variant starts, given the prior's mode."""
    return replace(mode, learning_rate=mode.learning_rate * 10**-BELOW)


@dataclass(frozen=True)
class RangeTest:
    """A short training with a growing learning rate.

    Attributes:
        rates: learning rate of each step, ascending.
        losses: token-averaged loss of each step's batch, before the step.
        config: learning rate of the first step, batch size, rank and alpha.
        variant: what was trained.
    """

    rates: Sequence[float]
    losses: Sequence[float]
    config: Config
    variant: str

    @cached_property
    def smoothed(self) -> np.ndarray:
        """(steps,) losses, averaged over a window centred at each step; infinite where one has blown up."""
        losses = np.array([loss if math.isfinite(loss) else math.inf for loss in self.losses])
        half = WINDOW // 2
        return np.array([losses[max(0, i - half) : i + half + 1].mean() for i in range(len(losses))])

    @property
    def examples(self) -> int:
        """Training examples it took."""
        return len(self.losses) * self.config.batch_size

    @property
    def lowest(self) -> float:
        """Learning rate at the lowest smoothed loss."""
        return self.rates[int(np.argmin(self.smoothed))]

    @property
    def conclusive(self) -> bool:
        """Whether the loss was finite at the start, fell, and rose again, both by more than its noise.

        Otherwise the readings are no evidence.
        """
        if not np.isfinite(self.losses[:START]).all() or self._beyond is None:
            return False
        bottom = float(self.smoothed.min())
        margin = CLEAR * self._noise
        return float(np.mean(self.losses[:START])) - bottom > margin and float(self.smoothed.max()) - bottom > margin

    @property
    def _noise(self) -> float:
        """Standard deviation of a smoothed loss, from the median change between steps: a normal's is 0.95 sd."""
        changes = np.abs(np.diff([loss for loss in self.losses if math.isfinite(loss)]))
        return float(np.median(changes)) / 0.95 / math.sqrt(WINDOW) if len(changes) else math.inf

    @property
    def _beyond(self) -> int | None:
        """The first step, after the lowest loss, at which the smoothed loss has risen beyond the edge's limit."""
        bottom = int(np.argmin(self.smoothed))
        start = float(np.mean(self.losses[:START]))
        limit = self.smoothed[bottom] + RISE * max(start - self.smoothed[bottom], 0.0)
        risen = np.flatnonzero(self.smoothed[bottom:] > limit)
        return bottom + int(risen[0]) if len(risen) else None

    @property
    def edge(self) -> float:
        """Learning rate beyond which training comes apart; the last one tried where it never did."""
        return self.rates[-1 if self._beyond is None else self._beyond]

    @property
    def steepest(self) -> float:
        """Learning rate at which the smoothed loss falls fastest."""
        falling = self.smoothed[: int(np.argmin(self.smoothed)) + 1]
        if len(falling) == 1:  # it never fell
            return self.rates[0]
        return self.rates[int(np.argmin(np.gradient(falling)))]
