"""What is kept of a trace: the regret against full runs spent, and how many it took to be close to the best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from autolora.space import Config
from studies.search.ledger import Step
from studies.search.problem import Problem, regret, within_noise

GRID = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0)
"""Full runs spent at which the regret is read."""

TARGET = 0.02
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Outcome:
    """How one variant fared in one repeat.

    Attributes:
        regrets: at GRID, of the best configuration that had been trained at full length; nothing: of doing nothing.
        chosen: at the end, of the configuration with the best observed score, which noise may have flattered; where
            some were trained on several seeds, of those the one with the best mean.
        to_target, to_noise: full runs until the regret was within 2%, and within one standard deviation over seeds;
            infinite where it never was.
        spent: full runs in all.
    """

    regrets: tuple[float, ...]
    chosen: float
    to_target: float
    to_noise: float
    spent: float


def outcome(problem: Problem, variant: str, trace: Sequence[Step]) -> Outcome:
    own = [step for step in trace if step.variant == variant]
    finished = [
        (step.spent, regret(problem, variant, step.config))
        for step in own
        if step.fraction == 1.0 and step.score is not None
    ]
    nothing = regret(problem, variant, None)
    curve = tuple(min([nothing, *(value for spent, value in finished if spent <= at + TOLERANCE)]) for at in GRID)
    return Outcome(
        regrets=curve,
        chosen=regret(problem, variant, _chosen(own, 1.0 if problem.direction == "minimize" else -1.0)),
        to_target=_first(finished, TARGET),
        to_noise=_first(finished, within_noise(problem, variant)),
        spent=max((step.spent for step in own), default=0.0),
    )


def _chosen(steps: Sequence[Step], sign: float) -> Config | None:
    """What the scores of full runs say is best, as the search itself goes by them."""
    scores: dict[Config, dict[int, float]] = {}
    for step in steps:
        if step.fraction == 1.0:
            scores.setdefault(step.config, {})[step.seed] = math.inf if step.score is None else sign * step.score
    means = {config: fmean(by_seed.values()) for config, by_seed in scores.items()}
    stable = {config: mean for config, mean in means.items() if not math.isinf(mean)}
    repeated = [config for config in stable if len(scores[config]) > 1]
    return min(repeated or stable, key=stable.__getitem__, default=None)


def _first(finished: Sequence[tuple[float, float]], level: float) -> float:
    return min((spent for spent, value in finished if value <= level + TOLERANCE), default=math.inf)
