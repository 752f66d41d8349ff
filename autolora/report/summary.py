"""A study in numbers: pure functions of the trial table, shared by the live view, plain lines and `autolora status`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from autolora.search.policy import Plan
from autolora.search.trials import Trial, TrialTable
from autolora.space import Config, Dimension, registry


@dataclass(frozen=True)
class VariantSummary:
    """Where one variant stands.

    Attributes:
        incumbent: the trial with the best score at the highest rung reached, or None.
        spent, budget: full-run equivalents.
        counts: trials by state: running, paused, complete, pruned, diverged, infeasible.
        seconds: wall time of its trials so far.
    """

    variant: str
    incumbent: Trial | None
    spent: float
    budget: float
    counts: Mapping[str, int]
    seconds: float


def summarize(table: TrialTable, plan: Plan, variant: str) -> VariantSummary:
    trials = table.of(variant)
    counts: Counter[str] = Counter(trial.outcome or ("running" if trial.pending else "paused") for trial in trials)
    seconds = sum(trial.seconds for trial in trials)
    return VariantSummary(variant, incumbent(table, variant), table.spent(variant), plan.budget, counts, seconds)


def incumbent(table: TrialTable, variant: str) -> Trial | None:
    """The best trial at the highest rung that any healthy trial of the variant has reached."""
    healthy = [trial for trial in table.of(variant) if trial.healthy and trial.scores]
    if not healthy:
        return None
    rung = max(trial.reached for trial in healthy)
    return table.ranked((trial for trial in healthy if rung in trial.scores), rung)[0]


def seconds_left(table: TrialTable, plan: Plan) -> float | None:
    """Estimated training time to the end of the budget at the pace so far; None before the first score."""
    spent = sum(table.fraction(trial) for trial in table.trials)
    if spent == 0:
        return None
    pace = sum(trial.seconds for trial in table.trials) / spent
    return pace * max(0.0, (plan.budget - table.upfront) * len(plan.variants) - spent)


def duration(seconds: float) -> str:
    """ "48 s", "12 min", "3 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def setting(config: Config) -> str:
    """A configuration on one line: "lr 2.00e-04  batch 8  rank 8  alpha 16"."""
    return "  ".join(phrase for dimension in registry() if (phrase := dimension.phrase(config)))


def columns(configs: Iterable[Config]) -> list[Dimension]:
    """The dimensions of which any of these configurations has a value."""
    configs = list(configs)
    return [dimension for dimension in registry() if any(dimension.text(config) for config in configs)]


def cells(config: Config, shown: Iterable[Dimension]) -> list[str]:
    """A configuration's values in the columns of these dimensions."""
    return [dimension.text(config) or "-" for dimension in shown]


def stops(counts: Mapping[str, int]) -> str:
    """How many trials were stopped, by kind: "12 pruned, 3 diverged"."""
    parts = [f"{counts[kind]} {kind}" for kind in ("pruned", "diverged", "infeasible") if counts.get(kind)]
    return ", ".join(parts) or "none"
