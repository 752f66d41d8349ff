"""What a method has trained and spent: the only way to a score, so that no method can spend more than it has."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from autolora.space import Config
from studies.search.problem import Problem

TOLERANCE = 1e-6
SEEDS = 1000
"""Seeds of one configuration that a repeat keeps apart."""


class OutOfBudget(Exception):
    """The training does not fit in what is left for the variant."""


@dataclass(frozen=True)
class Step:
    """One segment of training.

    Attributes:
        spent: full runs of the variant when it ended, this segment included.
        variant, config: what was trained.
        fraction: of a full run, to which it has been trained in total.
        score: None where it diverged.
        seed: of the training, among those of the repeat.
    """

    spent: float
    variant: str
    config: Config
    fraction: float
    score: float | None
    seed: int = 0


class Ledger:
    """Trains on a problem, within a budget of full runs for each variant.

    Args:
        problem: what is trained.
        budget: full runs per variant, partial ones included at their share.
        seed: of the repeat; what is trained twice in a repeat has the same score.
    """

    def __init__(self, problem: Problem, budget: float, seed: int) -> None:
        self.problem = problem
        self.budget = budget
        self.seed = seed
        self.trace: list[Step] = []
        self._spent: dict[str, float] = defaultdict(float)

    def left(self, variant: str) -> float:
        return self.budget - self._spent[variant]

    def holds(self, variant: str, cost: float) -> bool:
        return cost <= self.left(variant) + TOLERANCE

    def charge(self, variant: str, cost: float) -> None:
        """Take full runs off a variant's budget for what is no training of it, as what a prior cost."""
        self._spent[variant] += cost

    def train(self, variant: str, config: Config, stop: float = 1.0, start: float = 0.0, seed: int = 0) -> float | None:
        """Train from one fraction of a full run to another and score it; None where it diverged, charged to there.

        Raises:
            OutOfBudget: it does not fit; nothing is charged.
        """
        if not self.holds(variant, stop - start):
            raise OutOfBudget(f"{variant}: {stop - start:.3f} full runs do not fit in {self.left(variant):.3f}")
        score = self.problem.evaluate(variant, config, stop, SEEDS * self.seed + seed)
        reached = stop if score is not None else max(start, min(stop, self.problem.diverges_at(variant, config)))
        self._spent[variant] += reached - start
        self.trace.append(Step(self._spent[variant], variant, config, stop, score, seed))
        return score
