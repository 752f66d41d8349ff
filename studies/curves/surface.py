"""The learning-curve table as a surface: scores between its cells, and where the best learning rate lies."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from studies.curves.collect import read

WITHIN = 0.02
"""The best learning rate is the centre of the plateau: of the scores within this share of the lowest."""
UNTRAINED_DECADES = 2.0
"""Below the lowest rate of a curve its score rises to the untrained model's over so many decades."""


class Setting(NamedTuple):
    """A curve over the learning rate."""

    variant: str
    batch_size: int
    rank: int
    alpha: float


@dataclass(frozen=True)
class Curve:
    """Scores of one setting over the learning rate.

    Attributes:
        log_rates: (cells,) log10, ascending.
        scores: (cells, rungs), means over seeds; infinite where a seed diverged before the rung.
        stopped: (cells,) fraction of a run at which a diverged cell stopped; 1 elsewhere.
        untrained: score of the base.
    """

    log_rates: np.ndarray
    scores: np.ndarray
    stopped: np.ndarray
    untrained: float

    def score(self, learning_rate: float, rung: int) -> float:
        """Interpolated on log10 of the learning rate; infinite (diverged) beyond the last cell or nearest to such."""
        x, scores = math.log10(learning_rate), self.scores[:, rung]
        if x > self.log_rates[-1] + 0.125:
            return math.inf
        if x <= self.log_rates[0]:
            share = min(1.0, (self.log_rates[0] - x) / UNTRAINED_DECADES)
            return float(scores[0] + share * max(0.0, self.untrained - scores[0]))
        place = (np.clip(x, None, self.log_rates[-1]) - self.log_rates[0]) / (self.log_rates[1] - self.log_rates[0])
        below = min(int(place), len(scores) - 2)
        low, high, share = scores[below], scores[below + 1], place - below
        if math.isinf(low) or math.isinf(high):
            return float(low if share < 0.5 else high)
        return float((1 - share) * low + share * high)

    def stop(self, learning_rate: float) -> float:
        """Fraction of a run at which training diverges, of the nearest cell."""
        return float(self.stopped[int(np.argmin(abs(self.log_rates - math.log10(learning_rate))))])

    def best(self) -> tuple[float, float]:
        """log10 of the best learning rate, the centre of the plateau at full length, and the lowest score."""
        fine = np.linspace(self.log_rates[0], self.log_rates[-1], 801)
        scores = np.array([self.score(10**x, -1) for x in fine])
        lowest = int(np.argmin(scores))
        left = right = lowest
        while left > 0 and scores[left - 1] <= scores[lowest] * (1 + WITHIN):
            left -= 1
        while right < len(fine) - 1 and scores[right + 1] <= scores[lowest] * (1 + WITHIN):
            right += 1
        return float(fine[left] + fine[right]) / 2, float(scores[lowest])


def curves(table: Path, seeds: tuple[int, ...] = (0, 1, 2)) -> dict[Setting, Curve]:
    """All curves of a table."""
    rows = [row for row in read(table) if row["seed"] in seeds]
    rungs = [column for column in rows[0] if column.startswith("score@")]
    untrained = max(row[rungs[0]] for row in rows if row[rungs[0]] is not None)
    cells: dict[Setting, dict[float, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        setting = Setting(row["variant"], row["batch_size"], row["rank"], row["alpha"])
        cells[setting][row["learning_rate"]].append(row)
    found = {}
    for setting, by_rate in cells.items():
        rates = sorted(by_rate)
        scores = [np.mean([[_score(row[rung]) for rung in rungs] for row in by_rate[rate]], axis=0) for rate in rates]
        stopped = [min(row["stopped_at"] or 1.0 for row in by_rate[rate]) for rate in rates]
        found[setting] = Curve(np.log10(rates), np.array(scores), np.array(stopped), untrained)
    return found


def _score(value: Any) -> float:
    return math.inf if value is None else float(value)
