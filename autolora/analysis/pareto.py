"""Which configurations are best in the metric and in what was reported beside it, taken together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeAlias

from autolora.files import Document
from autolora.search.runs import runs_by_config, winner
from autolora.search.trials import Direction, Trial, TrialTable
from autolora.space import Config


@dataclass(frozen=True)
class ParetoPoint:
    """A configuration than which no other is as good in both and better in one.

    Attributes:
        variant, config: what was trained.
        value: score at full length, mean over seeds.
        reported: the other metric, mean over those seeds of which it is known.
        seeds: trained to the end.
    """

    variant: str
    config: Config
    value: float
    reported: float
    seeds: int

    def as_dict(self) -> dict[str, object]:
        """As plain data, one key per field."""
        return {**vars(self), "config": self.config.as_dict()}

    @classmethod
    def from_dict(cls, raw: Document) -> ParetoPoint:
        """The inverse of :meth:`as_dict`."""
        return cls(**{**raw, "config": Config.of(**raw["config"])})


Pareto: TypeAlias = "Mapping[str, tuple[ParetoPoint, ...]]"
"""The front of the metric with each of the reported ones, by name; the best score first."""


def pareto(table: TrialTable, variants: Iterable[str], directions: Mapping[str, Direction]) -> Pareto:
    """The fronts over all variants' full-length runs.

    Scores of a configuration are averaged over its seeds. One with a single seed was chosen for scoring well, so where
    its variant's best has several, its score is taken to be no better than that one's mean.

    Args:
        table: everything that has happened.
        variants: names.
        directions: of the reported metrics, by name. Those that no full-length run tells have an empty front.
    """
    groups = [(name, runs, _believed(table, name, runs)) for name in variants for runs in _groups(table, name)]
    return {name: _front(table, groups, name, direction) for name, direction in directions.items()}


def pareto_as_dict(found: Pareto) -> dict[str, object]:
    """As plain data."""
    return {name: [point.as_dict() for point in front] for name, front in found.items()}


def pareto_from_dict(raw: Document) -> Pareto:
    """The inverse of :func:`pareto_as_dict`."""
    return {name: tuple(ParetoPoint.from_dict(point) for point in front) for name, front in raw.items()}


def reported_means(runs: Sequence[Trial], rung: int) -> dict[str, float]:
    """What was reported of runs of one configuration at a rung: means over those that tell it."""
    told = [trial.metrics.get(rung, {}) for trial in runs]
    names = dict.fromkeys(name for each in told for name in each)
    return {name: fmean(each[name] for each in told if name in each) for name in names}


def _groups(table: TrialTable, variant: str) -> Iterable[Sequence[Trial]]:
    return runs_by_config(table, variant).values()


def _mean(table: TrialTable, runs: Sequence[Trial]) -> float:
    return fmean(trial.scores[len(table.rungs) - 1] for trial in runs)


def _believed(table: TrialTable, variant: str, runs: Sequence[Trial]) -> float:
    """The mean score, the smaller the better, that dominance goes by."""
    best = winner(table, variant)
    own = table.sign * _mean(table, runs)
    return max(own, table.sign * _mean(table, best)) if len(best) > len(runs) == 1 else own


def _front(
    table: TrialTable, groups: Sequence[tuple[str, Sequence[Trial], float]], name: str, direction: Direction
) -> tuple[ParetoPoint, ...]:
    last, sign = len(table.rungs) - 1, 1.0 if direction == "minimize" else -1.0
    known = []
    for variant, runs, believed in groups:
        means = reported_means(runs, last)
        if name in means:
            point = ParetoPoint(variant, runs[0].config, _mean(table, runs), means[name], len(runs))
            known.append(((believed, sign * means[name], -len(runs)), point))
    front: list[ParetoPoint] = []
    least = float("inf")
    for (_, reported, _), point in sorted(known, key=lambda each: each[0]):
        if reported < least:
            least = reported
            front.append(point)
    return tuple(front)
