"""How two tuned variants differ, given that another seed, other examples or a longer search would have told otherwise.

The score of configuration v with seed s on example e is taken as

    y(v, s, e) = mean(v) + example(e) + (example x configuration)(v, e) + seed(v, s) + (seed x example)(v, s, e)

and the question is that of new seeds and new examples: would mean(v) - mean(w) still have this sign? All variants are
scored on the same rows, so example(e) leaves the difference of two means, whose variance has two parts:

- seeds: S = sd^2 (1/n_v + 1/n_w), with the sd of scores between seeds of one configuration pooled over all
  configurations that were trained with several;
- examples: X = the variance of the per-example differences, each averaged over seeds, over the number of examples.

Both hold the seed x example noise, C; it is estimated within the repeated configurations and taken off X. The interval
is the difference give or take sqrt(t1^2 S + t2^2 (X - C)), each part with the t of its own degrees of freedom: exact
where one part is all, cautious between. (Satterthwaite's one t for both covers too little where one or two degrees of
freedom are behind S, as is usual here.) p is the level at which the interval would end at zero. Seeds count as
independent between variants though trials of equal seed see the data in the same order, which errs towards caution.

A search has luck, too: one variant's tuned configuration may be nearer to the best of that variant than another's.
What is compared are the variants at their best. So a claim that v is worse than w must survive v's shortfall, what v
might still gain by more search, and one that v is better must survive w's. Shortfalls are the surrogate's. The mean
square of one is a third part of the variance, with the normal quantile, at the end of the interval that it pulls at.

The means include the seeds by which configurations were chosen. That flatters every variant, and at equal budget
about alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from autolora.analysis import student
from autolora.scores import Scores

LEVEL = 0.05

LEAST_P = 1e-12
NORMAL = 10_000
"""Degrees of freedom at which t is as good as normal."""

Parts = Sequence[tuple[float, int]]
"""Parts of a variance, each with its degrees of freedom."""

Runs = Sequence[Scores]
"""The full-length scores of one configuration, one a seed."""


@dataclass(frozen=True)
class SeedNoise:
    """What the seed does to a score, pooled over configurations.

    Attributes:
        variance: of the score between seeds of one configuration.
        freedom: degrees of freedom behind it.
        interaction: variance of the seed x example noise, of one example; 0 where it is not known.
    """

    variance: float
    freedom: int
    interaction: float

    @classmethod
    def pooled(cls, groups: Sequence[Runs]) -> SeedNoise | None:
        """From the runs of several configurations; None where none was trained with two seeds."""
        repeated = [runs for runs in groups if len(runs) > 1]
        freedom = sum(len(runs) - 1 for runs in repeated)
        if freedom < 1:
            return None
        means = [fmean(run.value for run in runs) for runs in repeated]
        squares = sum((run.value - mean) ** 2 for runs, mean in zip(repeated, means, strict=True) for run in runs)
        return cls(squares / freedom, freedom, _interaction(repeated))

    def of_difference(self, one: int, other: int) -> float:
        """Variance of the difference of two means over ``one`` and ``other`` seeds."""
        return self.variance * (1 / one + 1 / other)


@dataclass(frozen=True)
class Difference:
    """The score of one configuration minus another's, in the metric's own units.

    Attributes:
        value: the difference.
        low, high: its 95% interval over new seeds, new examples and more search; None where seed noise is not known.
        p: probability of a difference as large by chance alone, adjusted for the number of comparisons (Holm).
        seed_error, example_error: standard errors of its two parts; None where one is not known.
        seeds: of this configuration and of the other.
        shortfalls: root mean squares of how far this configuration and the other may be behind the best of their
            variants; None where it is not known.
    """

    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    seed_error: float | None = None
    example_error: float | None = None
    seeds: tuple[int, int] | None = None
    shortfalls: tuple[float, float] | None = None


def difference(
    one: Runs,
    other: Runs,
    noise: SeedNoise | None,
    shortfalls: tuple[float, float] | None = None,
    sign: float = 1.0,
) -> Difference:
    """``one`` minus ``other``; p is not adjusted yet. Where the metric tells nothing of examples, by seeds alone.

    Args:
        one, other: their runs.
        noise: of seeds; None where it is not known.
        shortfalls: see :class:`Difference`.
        sign: 1 where less is better, -1 where more is.
    """
    value = fmean(run.value for run in one) - fmean(run.value for run in other)
    paired = _paired(one, other)
    examples = None if paired is None else float(paired.var(ddof=1)) / len(paired)
    example_error = None if examples is None else math.sqrt(examples)
    known = Difference(value, example_error=example_error, seeds=(len(one), len(other)), shortfalls=shortfalls)
    if noise is None or (noise.variance == 0.0 and examples is None):
        return known
    parts = [(noise.of_difference(len(one), len(other)), noise.freedom)]
    if paired is not None and examples is not None:
        shared = noise.interaction * (1 / len(one) + 1 / len(other)) / len(paired)
        parts.append((max(0.0, examples - shared), len(paired) - 1))
    own, others = ([] if each == 0.0 else [(each**2, NORMAL)] for each in shortfalls or (0.0, 0.0))
    below, above = (own, others) if sign > 0 else (others, own)  # what this one may gain is below where less is better
    return replace(
        known,
        low=value - _reach(LEVEL, [*parts, *below]),
        high=value + _reach(LEVEL, [*parts, *above]),
        p=_p(value, [*parts, *(below if value > 0 else above)]),
        seed_error=math.sqrt(parts[0][0]),
    )


def paired_error(one: Scores, other: Scores) -> float | None:
    """Standard error of the difference of two runs over examples alone; None where the metric tells nothing of them."""
    paired = _paired([one], [other])
    return None if paired is None else math.sqrt(float(paired.var(ddof=1)) / len(paired))


def holm(values: Mapping[str, float]) -> dict[str, float]:
    """p adjusted for the number of comparisons by Holm's step-down method."""
    adjusted, largest = {}, 0.0
    for place, (name, p) in enumerate(sorted(values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(values) - place) * p))
        adjusted[name] = largest
    return adjusted


def _paired(one: Runs, other: Runs) -> np.ndarray | None:
    """(rows,) differences, each averaged over seeds; None unless all runs were scored on the same number of rows."""
    first, second = _averaged(one), _averaged(other)
    if first is None or second is None or len(first) != len(second) or len(first) < 2:
        return None
    return np.asarray(first - second)


def _averaged(runs: Runs) -> np.ndarray | None:
    matrix = _matrix(runs)
    return None if matrix is None else np.asarray(matrix.mean(axis=0))


def _matrix(runs: Runs) -> np.ndarray | None:
    """(seeds, rows) contributions, or None where a run lacks them."""
    rows = [row for run in runs if (row := run.contributions()) is not None]
    if len(rows) < len(runs) or len({len(row) for row in rows}) != 1:
        return None
    return np.stack(rows)


def _interaction(repeated: Sequence[Runs]) -> float:
    """Variance of what is left of contributions once their seed's and their example's means are taken off."""
    squares, freedom = 0.0, 0
    for runs in repeated:
        matrix = _matrix(runs)
        if matrix is None or matrix.shape[1] < 2:
            continue
        rest = matrix - matrix.mean(axis=0) - matrix.mean(axis=1, keepdims=True) + matrix.mean()
        squares += float((rest**2).sum())
        freedom += (matrix.shape[0] - 1) * (matrix.shape[1] - 1)
    return squares / freedom if freedom else 0.0


def _reach(level: float, parts: Parts) -> float:
    """Half the width of the interval that misses with probability ``level``."""
    return math.sqrt(sum(part * student.critical(level, freedom) ** 2 for part, freedom in parts if part > 0))


def _p(value: float, parts: Parts) -> float:
    """The level at which the interval ends at zero, no less than LEAST_P."""
    if _reach(LEAST_P, parts) <= abs(value):
        return LEAST_P if value else 1.0
    low, high = math.log(LEAST_P), 0.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (low, middle) if _reach(math.exp(middle), parts) <= abs(value) else (middle, high)
    return math.exp(high)
