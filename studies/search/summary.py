"""Statistics over searches: means, interquartile means, ratios, their bootstrap intervals, times to a target, ranks.

One repeat of one problem is one search; its value is the mean over its variants. Every search weighs the same, however
many variants it tunes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np

from studies.search.measures import GRID
from studies.search.rows import Row

Searches = Mapping[str, Mapping[int, float]]
"""{problem: {repeat: value}}."""
Statistic = Callable[[np.ndarray], np.ndarray]

DRAWS = 2000
LEVEL = 95.0


class Estimate(NamedTuple):
    """A statistic with its bootstrap interval."""

    value: float
    low: float
    high: float

    def plain(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"

    def percent(self) -> str:
        return f"{100 * self.value:.2g} ({100 * self.low:.2g} to {100 * self.high:.2g})"


def regret_at(at: float) -> Callable[[Row], float]:
    """The regret after so many full runs."""
    place = GRID.index(at)
    return lambda row: row.outcome.regrets[place]


def to_target(row: Row) -> float:
    """Full runs until close to the best; the budget where never."""
    return min(row.outcome.to_target, GRID[-1])


def to_noise(row: Row) -> float:
    """Full runs until within noise of the best; the budget where never."""
    return min(row.outcome.to_noise, GRID[-1])


def mean(values: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    return np.asarray(values.mean(axis=-1))


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Mean of the middle half along the last axis; of so few that a quarter is none, of all."""
    cut = values.shape[-1] // 4
    return np.asarray(np.sort(values, axis=-1)[..., cut : values.shape[-1] - cut].mean(axis=-1))


def by_search(rows: Iterable[Row], measure: Callable[[Row], float]) -> Searches:
    """The mean of a measure over the variants of each search."""
    found: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        found.setdefault(row.problem, {}).setdefault(row.repeat, []).append(measure(row))
    return {problem: {repeat: fmean(own) for repeat, own in repeats.items()} for problem, repeats in found.items()}


def quantile(rows: Sequence[Row], measure: Callable[[Row], float], share: float) -> float:
    """The value of a measure that this share of variants does not exceed; the variants of a search share its weight."""
    variants = Counter(row.key for row in rows)
    pairs = sorted((measure(row), 1 / variants[row.key]) for row in rows)
    reached = np.cumsum([weight for _, weight in pairs])
    return pairs[int(np.searchsorted(reached, share * reached[-1] * (1 - 1e-9)))][0]


def bootstrapped(searches: Searches, statistic: Statistic, seed: int = 0) -> Estimate:
    """A statistic over all searches, with its interval: every problem's searches drawn again with replacement.

    Args:
        searches: the value of each.
        statistic: of an array along its last axis.
        seed: of the draws.
    """
    drawn, whole = _drawn(searches, seed)
    return _estimate(statistic(drawn), statistic(whole))


def ratio_of_means(searches: Searches, others: Searches, seed: int = 0) -> Estimate:
    """The mean over the searches that both have, relative to the mean of the others; drawn in pairs."""
    shared = {
        problem: [repeat for repeat in repeats if repeat in others.get(problem, {})]
        for problem, repeats in searches.items()
    }
    (above, whole_above), (below, whole_below) = (
        _drawn({problem: {repeat: of[problem][repeat] for repeat in shared[problem]} for problem in shared}, seed)
        for of in (searches, others)
    )
    return _estimate(mean(above) / mean(below), mean(whole_above) / mean(whole_below))


def _drawn(searches: Searches, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(DRAWS, n) values of drawn searches, and the (n,) values; the same draws for the same problems and repeats."""
    rng = np.random.default_rng(seed)
    drawn, whole = [], []
    for problem in sorted(searches):
        values = np.array([searches[problem][repeat] for repeat in sorted(searches[problem])])
        if len(values):
            drawn.append(values[rng.integers(len(values), size=(DRAWS, len(values)))])
            whole.append(values)
    return np.concatenate(drawn, axis=1), np.concatenate(whole)


def _estimate(drawn: np.ndarray, value: np.ndarray) -> Estimate:
    tail = (100 - LEVEL) / 2
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return Estimate(float(value), float(low), float(high))


def mean_ranks(rows: Sequence[Row], measure: Callable[[Row], float]) -> dict[str, float]:
    """Mean over searches of a method's rank, the mean over its variants; equal ones share the mean of theirs.

    Ranked are the methods that were run the most, so that one with few repeats does not narrow the cases to its own.
    """
    cases: dict[tuple[str, int, str], dict[str, float]] = {}
    for row in rows:
        cases.setdefault((row.problem, row.repeat, row.variant), {})[row.method] = measure(row)
    counts = Counter(row.method for row in rows)
    methods = sorted(method for method, count in counts.items() if count == max(counts.values()))
    full = {key: case for key, case in cases.items() if set(methods) <= set(case)}
    if not full:
        return {}
    values = np.array([[case[method] for method in methods] for case in full.values()])
    below = (values[:, None, :] < values[:, :, None]).sum(axis=2)
    equal = (values[:, None, :] == values[:, :, None]).sum(axis=2)
    variants = Counter((problem, repeat) for problem, repeat, _ in full)
    weights = [1 / variants[problem, repeat] for problem, repeat, _ in full]
    ranks = np.average(below + (equal + 1) / 2, axis=0, weights=weights)
    return dict(zip(methods, ranks.tolist(), strict=True))
