"""What of a budget can still be spent in the time that is left: a pure function of the trial table and of paces."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from autolora.search.policy import Limit, Plan, kept
from autolora.search.trials import TrialTable
from autolora.space import Config

Seconds = Callable[[str, "Config | None", float, float], "float | None"]
"""What training a variant's configuration, or any of it, from one share of a full run to another takes; None if that is
not known."""


SLACK = 0.05
"""Full runs that a share may lack of a run: segments have costs that do not go with their length. Whether a run ends in
time is looked at for itself."""


def limits(
    table: TrialTable,
    plan: Plan,
    left: float,
    workers: int,
    pending: float,
    seconds: Seconds,
    *,
    alone: str | None = None,
) -> dict[str, Limit]:
    """What the time allows each variant.

    All workers' time is shared so that variants get to the same number of full runs, as budgets do: to those that have
    spent less, more. Where that is no full run for some, those that are furthest get it, and the others nothing: a full
    run of one variant is worth more than parts of runs of all.

    Args:
        table: everything that has happened.
        plan: the terms, without limits.
        left: seconds until the last segment must have ended.
        workers: that train at once.
        pending: seconds of work in segments that workers have now.
        seconds: by what trials took.
        alone: the variant that gets all of the time, where the shares of all are too small for anything.

    Returns:
        By variant; empty while nothing is known of how long anything takes.
    """
    paces = {name: seconds(name, None, 0.0, 1.0) for name in plan.variants}
    known = {name: max(pace, 1e-9) for name, pace in paces.items() if pace is not None}
    if not known:
        return {}
    work = max(0.0, workers * left - pending)
    among = _among(table, plan, known, work) if alone not in known else [alone]
    level = _level(table, plan, {name: known[name] for name in among}, work)
    shares = {name: level if name in among else 0.0 for name in known}
    budgets = {
        name: min(plan.budget, max(table.spent(name), share + SLACK * bool(share))) for name, share in shares.items()
    }
    confirms = {name: _confirm(plan, budget) for name, budget in budgets.items()}
    seeds = {name: kept(table, confirms[name], name) for name in known}
    # Further seeds come last, side by side on all workers.
    rounds = math.ceil(sum(seeds.values()) / workers)
    longest = max((known[name] for name, count in seeds.items() if count), default=0.0)

    def of(name: str) -> Callable[[Config, float, float], float]:
        return lambda config, begin, end: seconds(name, config, begin, end) or 0.0

    return {name: Limit(budgets[name], confirms[name], max(0.0, left), rounds * longest, of(name)) for name in known}


def lacking(table: TrialTable, variant: str) -> float:
    """Full-run equivalents that a variant lacks of its first complete trial; 0 if it has one."""
    if table.leaders(variant):
        return 0.0
    live = (trial for trial in table.of(variant) if trial.live)
    return min((table.cost(trial.config) - table.fraction(trial) for trial in live), default=table.cheapest)


def _among(table: TrialTable, plan: Plan, paces: Mapping[str, float], work: float) -> list[str]:
    """The variants that share the time: as many as get a full run each; all if none does."""
    among = list(paces)
    while among:
        level = _level(table, plan, {name: paces[name] for name in among}, work)
        if all(level - table.spent(name) >= lacking(table, name) - SLACK for name in among if lacking(table, name)):
            return among
        among.remove(max(among, key=lambda name: (lacking(table, name), among.index(name))))
    return list(paces)


def _level(table: TrialTable, plan: Plan, paces: Mapping[str, float], work: float) -> float:
    """The number of full runs to which all variants that have spent less get with so many seconds of work."""
    level = 0.0
    spent = sorted((table.spent(name), pace) for name, pace in paces.items())
    for place, (level, _) in enumerate(spent):
        upper = spent[place + 1][0] if place + 1 < len(spent) else plan.budget
        slope = sum(pace for _, pace in spent[: place + 1])
        if work <= slope * (upper - level):
            return level + work / slope
        work -= slope * max(0.0, upper - level)
    return max(level, plan.budget)


def _confirm(plan: Plan, budget: float) -> int:
    """Seeds kept of a smaller budget: as large a part of it, and at least one full run is left for the search."""
    if budget >= plan.budget:
        return plan.confirm
    return max(0, min(round(plan.confirm * budget / plan.budget), math.floor(budget - 1)))
