"""The tuned configuration of each variant: by the mean over seeds, with its spread."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from autolora.search.trials import Trial, TrialTable
from autolora.space import Config

SEEDS_FOR_OWN_SPREAD = 3
"""With fewer seeds than this, a variant's spread is pooled over all variants."""


@dataclass(frozen=True)
class Best:
    """The tuned configuration of one variant.

    Attributes:
        config: hyperparameters.
        value: mean score over ``seeds``.
        spread: standard deviation over seeds, pooled over variants where this one has few; None with no repeats.
        seeds: full-length scores of the configuration, one a seed.
        baseline: score of the variant's baseline, or None where it did not finish.
        trials: numbers of the trials behind ``seeds``.
    """

    config: Config
    value: float
    spread: float | None
    seeds: tuple[float, ...]
    baseline: float | None
    trials: tuple[int, ...]


def best(table: TrialTable, variants: Iterable[str]) -> dict[str, Best]:
    """The best configuration of each variant that has a full-length score.

    Configurations scored on several seeds go before those with one, whose score was chosen for being good; one that
    diverged on any seed is out.
    """
    groups = {variant: _stable_runs(table, variant) for variant in variants}
    last = len(table.rungs) - 1
    pooled = _pooled_spread([[t.scores[last] for t in runs] for group in groups.values() for runs in group])
    found: dict[str, Best] = {}
    for variant, group in groups.items():
        if not group:
            continue
        repeated = [runs for runs in group if len(runs) > 1]
        runs = min(repeated or group, key=lambda runs: table.sign * fmean(t.scores[last] for t in runs))
        seeds = tuple(trial.scores[last] for trial in runs)
        own = _pooled_spread([list(seeds)]) if len(seeds) >= SEEDS_FOR_OWN_SPREAD else pooled
        baseline = next((t.scores.get(last) for t in table.of(variant) if t.purpose == "baseline"), None)
        found[variant] = Best(runs[0].config, fmean(seeds), own, seeds, baseline, tuple(t.number for t in runs))
    return found


def _stable_runs(table: TrialTable, variant: str) -> list[list[Trial]]:
    """Full-length runs grouped by configuration, those that failed on any seed left out."""
    failed = {trial.config for trial in table.of(variant) if not trial.healthy}
    groups: dict[Config, list[Trial]] = {}
    for trial in table.complete(variant):
        if trial.config not in failed:
            groups.setdefault(trial.config, []).append(trial)
    return list(groups.values())


def _pooled_spread(groups: list[list[float]]) -> float | None:
    """Standard deviation within groups, over their joint degrees of freedom; None where there are none."""
    freedom = sum(len(group) - 1 for group in groups)
    if freedom < 1:
        return None
    squares = sum((value - fmean(group)) ** 2 for group in groups for value in group)
    return math.sqrt(squares / freedom)
