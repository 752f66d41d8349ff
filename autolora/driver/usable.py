"""Which runs of a variant are tested and exported: those of the best configuration, or what stands in for them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from autolora.driver.weights import Weights
from autolora.search.runs import ranking
from autolora.search.trials import Trial, TrialTable
from autolora.space import Config


@dataclass(frozen=True)
class Usable:
    """The runs of one configuration.

    Attributes:
        runs: one a seed.
        lost: why runs among them can neither be tested nor exported, by number.
        notes: lines on what is lost.
    """

    runs: Sequence[Trial]
    lost: Mapping[int, str]
    notes: tuple[str, ...] = ()

    @property
    def config(self) -> Config:
        return self.runs[0].config

    @property
    def left(self) -> list[Trial]:
        """Runs that are not lost."""
        return [trial for trial in self.runs if trial.number not in self.lost]


def usable(table: TrialTable, variant: str, weights: Weights) -> Usable | None:
    """The best configuration of which a run is left; where there is none, the best of all. None without a full run.

    Args:
        table: everything that has happened.
        variant: its name.
        weights: of the completed trials.
    """
    ranked = ranking(table, variant)
    if not ranked:
        return None
    best = Usable(ranked[0], weights.lost(variant, ranked[0]))
    if not best.lost:
        return best
    enough = math.ceil(100 * (table.spent(variant) + len(best.lost))) / 100
    again = f"With a budget of {enough:g} or more it is trained again"
    what = "; ".join(f"trial {number}: {reason}" for number, reason in best.lost.items())
    if best.left:
        note = f"of {len(best.runs)} seeds {len(best.lost)} lost, and the others stand in ({what}). {again}"
        return replace(best, notes=(note,))
    for runs in ranked[1:]:
        other = Usable(runs, weights.lost(variant, runs))
        if other.left:
            score = fmean(trial.scores[len(table.rungs) - 1] for trial in best.runs)
            note = f"the best configuration, which scored {score:.4f}, is lost, and the next best stands in ({what})"
            return replace(other, notes=(f"{note}. {again}",))
    return replace(best, notes=(f"there is no adapter, as what full runs have trained is lost ({what}). {again}",))
