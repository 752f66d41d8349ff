"""What a problem of the benchmark is: scores of configurations at fractions of a full run, with a known best."""

from __future__ import annotations

import math
import zlib
from typing import Protocol

import numpy as np

from autolora.search.trials import Direction
from autolora.space import Config, Space

DIGITS = 6
"""Digits of a learning rate and an alpha that the noise of a training depends on. Processors compute the last of
sixteen differently (OpenBLAS has a kernel for each kind), and other noise would be another search."""


class Problem(Protocol):
    """A tuning task whose answer is known.

    Attributes:
        name: unique; the part before the slash is the family.
        variants: tuned in one study.
        space: what every method searches.
        rungs: fractions of a full run at which a score can be had, ascending to 1.
        direction: of the score.
        examples: of a full run, or None; known to the laws.
    """

    def __hash__(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def variants(self) -> tuple[str, ...]: ...
    @property
    def space(self) -> Space: ...
    @property
    def rungs(self) -> tuple[float, ...]: ...
    @property
    def direction(self) -> Direction: ...
    @property
    def examples(self) -> int | None: ...

    def evaluate(self, variant: str, config: Config, fraction: float, seed: int) -> float | None:
        """Score of one noisy training stopped at a rung; None where it has diverged by then."""

    def truth(self, variant: str, config: Config) -> float | None:
        """Score of a full run without noise; None where it diverges."""

    def diverges_at(self, variant: str, config: Config) -> float:
        """Fraction of a full run at which training stops for divergence; 1 where it does not."""

    def best(self, variant: str) -> float:
        """The best noiseless score of a full run in the space."""

    def worst(self, variant: str) -> float:
        """The score of doing nothing: what a variant has before its first full run, and what divergence counts as."""

    def noise(self, variant: str) -> float:
        """Standard deviation over seeds of the score of a full run near the best."""


def family(name: str) -> str:
    return name.partition("/")[0]


def regret(problem: Problem, variant: str, config: Config | None) -> float:
    """How far a configuration's noiseless full run is from the best, relative to the best; None: nothing trained."""
    score = None if config is None else problem.truth(variant, config)
    best, worst = problem.best(variant), problem.worst(variant)
    sign = 1.0 if problem.direction == "minimize" else -1.0
    gap = sign * ((worst if score is None else score) - best)
    return max(0.0, min(gap, sign * (worst - best))) / abs(best)


def within_noise(problem: Problem, variant: str) -> float:
    """The regret that one standard deviation over seeds amounts to."""
    return problem.noise(variant) / abs(problem.best(variant))


def draw(seed: int, *of: object) -> float:
    """A standard normal number that belongs to these things: the same training has the same noise, whoever runs it.

    Configurations that agree to DIGITS are the same training.
    """
    key = zlib.crc32("|".join(map(_key, of)).encode())
    return float(np.random.default_rng([seed, key]).standard_normal())


def _key(thing: object) -> str:
    if not isinstance(thing, Config):
        return repr(thing)
    return repr(thing.replaced(learning_rate=_rounded(thing.learning_rate), alpha=_rounded(thing.alpha)))


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def interpolated(x: float, nodes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Linear interpolation of ``values`` (nodes, ...) along the first axis; flat beyond the ends."""
    if len(nodes) == 1:
        return np.asarray(values[0])
    place = float(np.interp(x, nodes, np.arange(len(nodes))))
    below = min(math.floor(place), len(nodes) - 2)
    share = place - below
    return np.asarray((1 - share) * values[below] + share * values[below + 1])
