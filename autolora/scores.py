"""A score with what each example contributes to it, so that two scores on the same rows can be compared in pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


def _none() -> np.ndarray:
    return np.empty(0)


@dataclass(frozen=True, eq=False)
class Scores:
    """The score of one adapter on a split.

    Attributes:
        value: the score. Where the metric tells of each example, ``totals.sum() / weights.sum()``.
        totals: (rows,) float64, what each row adds: its summed token losses, its right answers; empty where the
            metric gives one number for all rows.
        weights: (rows,) float64, what each row counts: its target tokens, or 1.
    """

    value: float
    totals: np.ndarray = field(default_factory=_none)
    weights: np.ndarray = field(default_factory=_none)

    @classmethod
    def of(cls, totals: Sequence[float] | np.ndarray, weights: Sequence[float] | np.ndarray | None = None) -> Scores:
        """The mean of rows, weighted where there are weights."""
        totals = np.asarray(totals, dtype=np.float64)
        weights = np.ones_like(totals) if weights is None else np.asarray(weights, dtype=np.float64)
        return cls(float(totals.sum() / weights.sum()), totals, weights)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Scores):
            return NotImplemented
        same_rows = np.array_equal(self.totals, other.totals) and np.array_equal(self.weights, other.weights)
        return self.value == other.value and same_rows

    def __hash__(self) -> int:
        return hash((self.value, len(self.totals)))

    def contributions(self) -> np.ndarray | None:
        """(rows,) values whose plain mean is the score and whose variance is that of the score over new rows.

        For a weighted mean they are linearized: a long row that scores as the mean does moves nothing. None where the
        metric gives one number for all rows.
        """
        if len(self.totals) == 0:
            return None
        return np.asarray(self.value + (self.totals - self.value * self.weights) / self.weights.mean())
