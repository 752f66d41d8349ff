"""Statistics over repeats: interquartile means, their bootstrap intervals, times to a target, ranks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from studies.search.measures import GRID
from studies.search.rows import Row

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


def by_repeat(rows: Iterable[Row], measure: Callable[[Row], float]) -> dict[str, dict[int, list[float]]]:
    """{problem: {repeat: the measure of each variant}}."""
    found: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        found.setdefault(row.problem, {}).setdefault(row.repeat, []).append(measure(row))
    return found


def bootstrapped(
    groups: Mapping[str, Mapping[int, Sequence[float]]], statistic: Callable[[np.ndarray], np.ndarray], seed: int = 0
) -> Estimate:
    """A statistic over all variants, repeats and problems, every problem's repeats drawn anew with replacement.

    The variants of one repeat stay together: in a study of several they are not independent.

    Args:
        groups: {problem: {repeat: the values of each variant}}.
        statistic: of an array along its last axis.
    """
    rng = np.random.default_rng(seed)
    drawn, whole = [], []
    for repeats in groups.values():
        table = np.array([repeats[repeat] for repeat in sorted(repeats)])  # (repeats, variants)
        picks = rng.integers(len(table), size=(DRAWS, len(table)))
        drawn.append(table[picks].reshape(DRAWS, -1))
        whole.append(table.reshape(-1))
    values = statistic(np.concatenate(drawn, axis=1))
    tail = (100 - LEVEL) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return Estimate(float(statistic(np.concatenate(whole))), float(low), float(high))


def mean_ranks(rows: Sequence[Row], measure: Callable[[Row], float]) -> dict[str, float]:
    """Mean over problems, repeats and variants of a method's rank; equal ones share the mean of theirs.

    Ranked are the methods that were run the most, so that one with few repeats does not narrow the cases to its own.
    """
    cases: dict[tuple[str, int, str], dict[str, float]] = {}
    for row in rows:
        cases.setdefault((row.problem, row.repeat, row.variant), {})[row.method] = measure(row)
    counts = Counter(row.method for row in rows)
    methods = sorted(method for method, count in counts.items() if count == max(counts.values()))
    full = [case for case in cases.values() if set(methods) <= set(case)]
    if not full:
        return {}
    values = np.array([[case[method] for method in methods] for case in full])
    below = (values[:, None, :] < values[:, :, None]).sum(axis=2)
    equal = (values[:, None, :] == values[:, :, None]).sum(axis=2)
    return dict(zip(methods, (below + (equal + 1) / 2).mean(axis=0).tolist(), strict=True))
