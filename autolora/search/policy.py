"""What to do next, as a pure function of the trial table: sample, promote, finish, wait or stop.

Nothing is remembered between calls. That is what makes resuming, retrying and simulating the same thing as running.
A budget goes where it is worth most: to the paused trial or the new configuration with the largest expected improvement
per full run that it still costs. A trial ends early once its probability of improvement is small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Literal

from autolora.search.acquisition import Acquisition, Acquisitions
from autolora.search.runs import finalists, winner
from autolora.search.trials import Outcome, Purpose, Trial, TrialTable
from autolora.space import Config

TOLERANCE = 1e-9
FINALISTS = 2
FUTILE = 0.05
"""Probability to improve on the variant's best full run below which a trial is not trained on."""
PAUSED = 6
"""Trials of a variant that may wait with a checkpoint, so that what is on disk is bounded: the best by expected
improvement."""

HOPELESS = 20
"""Searched trials of a variant that fail in a row before no further one is sampled: failing at once is free."""


@dataclass(frozen=True)
class Limit:
    """What the time that is left allows a variant.

    Attributes:
        budget: in full-run equivalents, as ``Plan.budget``. Below 1 not even one full run is left to begin with, and
            short runs are all that is trained.
        confirm: full runs kept for further seeds of the finalists.
        left: seconds in which one segment after the other can be trained.
        confirming: of these, seconds that the further seeds take once the search is over.
        seconds: what training a configuration from one share of a full run to another takes.
    """

    budget: float
    confirm: int
    left: float
    confirming: float
    seconds: Callable[[Config, float, float], float]


@dataclass(frozen=True)
class Plan:
    """The fixed terms of a study.

    Attributes:
        variants: names, in the order given.
        rungs: fractions of a full run at which a trial is scored.
        budget: cap per variant, in full-run equivalents, everything included.
        confirm: full runs kept for further seeds of the finalists.
        baselines: variants of which the user gave one, trained first and to the end.
        limits: what the time that is left allows, by variant; those without one have all that the budget holds.
    """

    variants: tuple[str, ...]
    rungs: tuple[float, ...]
    budget: float
    confirm: int
    baselines: frozenset[str] = frozenset()
    limits: Mapping[str, Limit] = field(default_factory=dict)

    @property
    def last(self) -> int:
        return len(self.rungs) - 1

    def of(self, variant: str) -> Plan:
        """The terms of one variant, which has less to spend where time is short."""
        limit = self.limits.get(variant)
        return self if limit is None else replace(self, budget=limit.budget, confirm=limit.confirm)

    def fits(self, variant: str, config: Config, begin: float, end: float, *, kept: bool = False) -> bool:
        """Whether training from one share of a full run to another ends in time.

        Args:
            variant, config, begin, end: of what is trained.
            kept: whether time stays for further seeds of the finalists then.
        """
        limit = self.limits.get(variant)
        if limit is None:
            return True
        return limit.seconds(config, begin, end) + (limit.confirming if kept else 0.0) <= limit.left


@dataclass(frozen=True)
class Sample:
    """Start a trial. ``config`` is given where another seed of a known configuration is wanted."""

    variant: str
    purpose: Purpose
    target: int
    config: Config | None = None
    seed: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Promote:
    """Let a paused trial go on to rung ``target``."""

    number: int
    target: int
    reason: str


@dataclass(frozen=True)
class Resume:
    """Hand out again a trial that was sent to its target and has not come back."""

    number: int


@dataclass(frozen=True)
class Finish:
    """Close a trial."""

    number: int
    outcome: Outcome
    reason: str


@dataclass(frozen=True)
class Wait:
    """Nothing to hand out until a running trial reports."""


@dataclass(frozen=True)
class Done:
    """The budget is used."""


Action = Sample | Promote | Resume | Finish | Wait | Done
Acquire = Callable[[str, float], Acquisitions]
"""What a variant may train next, as the table is now, if a new trial may cost at most that many full runs."""
AcquirePaused = Callable[[str], Mapping[int, Acquisition]]
"""Of that, the paused trials alone, by number: computed quickly."""


def decide(
    table: TrialTable,
    plan: Plan,
    acquire: Acquire,
    acquire_paused: AcquirePaused,
    in_flight: frozenset[int] | set[int] = frozenset(),
) -> Action:
    """The next action.

    Args:
        table: everything that has happened.
        plan: the terms.
        acquire: asked only about variants whose turn it is, as it costs a model.
        acquire_paused: asked about all with paused trials.
        in_flight: trials that a worker has now.
    """
    for finish in completed(table, plan):
        return finish
    for trial in table.pending():
        if trial.number not in in_flight and trial.variant in plan.variants and _ends_in_time(table, plan, trial):
            return Resume(trial.number)
    for finish in futile(table, plan, acquire_paused):
        return finish
    # The variant that has used the smallest share of its budget goes first, so that all learn from one another.
    # Rounded, since sums of the same shares in another order differ in their last digits: ties go by the order given.
    for variant in sorted(plan.variants, key=lambda name: round(table.spent(name), 9)):
        action = _next_of(table, plan, variant, acquire)
        if action is not None:
            return action
    return Wait() if in_flight else Done()


def _ends_in_time(table: TrialTable, plan: Plan, trial: Trial) -> bool:
    """Whether a trial can get to its target in the time that is left."""
    target = table.share(trial.config, trial.target)
    return plan.fits(trial.variant, trial.config, table.fraction(trial), target)


def completed(table: TrialTable, plan: Plan) -> Iterator[Finish]:
    """Trials that have been scored at full length."""
    for trial in table.trained():
        yield Finish(trial.number, "complete", "trained to full length")


def futile(table: TrialTable, plan: Plan, acquire_paused: AcquirePaused) -> Iterator[Finish]:
    """Paused trials that are unlikely to become the best of their variant, or one too many to keep.

    Only the first is sure: acquisitions of the others change once it has ended.
    """
    for variant in plan.variants:
        complete = bool(table.leaders(variant))
        paused = len(table.paused(variant))
        if not paused or not (complete or paused > PAUSED):
            continue
        by_improvement = sorted(acquire_paused(variant).items(), key=lambda item: -item[1].expected_improvement)
        for place, (number, acquisition) in enumerate(by_improvement, start=1):
            trial = table.trials[number]
            if complete and acquisition.probability_of_improvement < FUTILE:
                yield Finish(number, "pruned", _improvement(table, trial, acquisition))
            elif place > PAUSED:
                yield Finish(
                    number, "pruned", f"{_improvement(table, trial, acquisition)}; {PAUSED} others promise more"
                )


def _next_of(table: TrialTable, plan: Plan, variant: str, acquire: Acquire) -> Action | None:
    plan = plan.of(variant)
    trials = table.of(variant)
    baseline = next((trial for trial in trials if trial.purpose == "baseline"), None)
    if baseline is None and variant in plan.baselines and plan.budget >= 1.0 - TOLERANCE:
        return Sample(variant, "baseline", 0)
    if baseline is not None and baseline.live and not baseline.pending:
        target = table.rung_from(baseline.config, baseline.reached + 1)
        if plan.fits(variant, baseline.config, table.fraction(baseline), table.share(baseline.config, target)):
            return Promote(baseline.number, target, "the baseline is trained to the end")
    action = _search(table, plan, variant, acquire)
    if action is None and not any(trial.first for trial in table.pending(variant)):
        action = _confirmation(table, plan, variant)
    if action is None and not table.pending(variant):  # who wins is then known
        action = _repetition(table, plan, variant)
    return action


def _search(table: TrialTable, plan: Plan, variant: str, acquire: Acquire) -> Action | None:
    """Train on or start a new trial, by expected improvement per full run that it still costs."""
    trials = table.of(variant)
    room = plan.budget - kept(table, plan.confirm, variant) - table.spent(variant) + TOLERANCE
    # Where time is too short for any trial to get to its end, as far as the next rung.
    whole = plan.budget >= table.cheapest - TOLERANCE or bool(table.leaders(variant))
    paused = table.paused(variant)
    ends = {trial.number: table.end(trial.config, trial.reached, whole) for trial in paused}
    costs = {trial.number: ends[trial.number] - table.fraction(trial) for trial in paused}
    affordable = [
        trial.number
        for trial in paused
        if costs[trial.number] <= room
        and plan.fits(variant, trial.config, table.fraction(trial), ends[trial.number], kept=True)
    ]
    starts = room >= (table.cheapest if whole else min(table.cheapest, plan.rungs[0])) and not _given_up(trials)
    if not affordable and not starts:
        return None
    acquisitions = acquire(variant, room)
    proposal = acquisitions.proposal if starts else None
    cost = 1.0
    if proposal is not None:
        cost, end = table.cost(proposal.config), table.end(proposal.config, -1, whole)
        proposal = proposal if plan.fits(variant, proposal.config, 0.0, end, kept=True) else None
    rates = {number: _rate(acquisitions.paused[number], costs[number]) for number in affordable}
    best = max(affordable, key=rates.__getitem__, default=None)
    if best is not None and (proposal is None or rates[best] >= _rate(proposal.acquisition, cost)):
        trial = table.trials[best]
        target = table.rung_from(trial.config, trial.reached + 1)
        return Promote(best, target, _improvement(table, trial, acquisitions.paused[best]))
    return None if proposal is None else Sample(variant, "search", 0, proposal.config, reason=proposal.origin)


def _rate(acquisition: Acquisition, cost: float) -> float:
    """Expected improvement per full run. Where steps are few, the last two rungs may be one, and nothing is left."""
    return acquisition.expected_improvement / cost if cost > 0 else math.inf


def _improvement(table: TrialTable, trial: Trial, acquisition: Acquisition) -> str:
    """The probability that a paused trial improves on the best, in words."""
    score = f"{trial.scores[trial.reached]:.4g} at {table.stop(trial.config, trial.reached):.3g} of a run"
    leaders = table.leaders(trial.variant)
    best = f" on trial {leaders[0].number}" if leaders else ""
    return f"{acquisition.probability_of_improvement:.0%} to improve{best}, from {score}"


def _given_up(trials: list[Trial]) -> bool:
    recent = list(islice((trial for trial in reversed(trials) if trial.purpose == "search"), HOPELESS))
    return len(recent) == HOPELESS and not any(trial.healthy for trial in recent)


def kept(table: TrialTable, confirm: int, variant: str) -> int:
    """Full runs that are kept for further seeds, and for results of the best that were lost.

    Args:
        table: everything that has happened.
        confirm: as in the variant's :class:`Plan`.
        variant: its name.
    """
    confirmed = len(table.confirming(variant))
    # Under a budget that has grown, a new winner needs a seed to be judged beside the confirmed.
    seeds = max(confirm - confirmed, 1 if confirm and confirmed else 0)
    return seeds + len(_lost(table, variant))


def _confirmation(table: TrialTable, plan: Plan, variant: str) -> Sample | None:
    """Another seed for the finalist that has fewest; one seed beyond the plan where the search left a full run over."""
    if plan.confirm == 0 or table.spent(variant) + 1.0 > plan.budget + TOLERANCE:
        return None
    trials = table.of(variant)
    leading = finalists(table, variant, FINALISTS)
    used = sum(trial.config in leading for trial in table.confirming(variant))
    optional = used >= plan.confirm or bool(table.confirming(variant))
    if used > plan.confirm or (
        optional and table.spent(variant) + 1.0 + len(_lost(table, variant)) > plan.budget + TOLERANCE
    ):
        return None
    contenders = leading if plan.confirm > 1 or used else leading[:1]
    contenders = [config for config in contenders if plan.fits(variant, config, 0.0, table.cost(config))]
    if not contenders:
        return None
    runs = {config: [trial for trial in trials if trial.config == config] for config in contenders}
    config = min(contenders, key=lambda candidate: len({trial.seed for trial in runs[candidate]}))
    return Sample(
        variant,
        "confirm",
        plan.last,
        config=config,
        seed=max(trial.seed for trial in runs[config]) + 1,
        reason=f"another seed of the finalist of trial {runs[config][0].number}",
    )


def _repetition(table: TrialTable, plan: Plan, variant: str) -> Sample | None:
    """A result of the best configuration that was lost is trained again, as far as the budget goes."""
    for trial in _lost(table, variant):
        affordable = table.spent(variant) + 1.0 <= plan.budget + TOLERANCE
        if affordable and plan.fits(variant, trial.config, 0.0, table.cost(trial.config)):
            reason = f"trial {trial.number} again, as it was lost: {trial.weights_lost}"
            return Sample(variant, "repeat", plan.last, config=trial.config, seed=trial.seed, reason=reason)
    return None


def _lost(table: TrialTable, variant: str) -> list[Trial]:
    """Runs of the best configuration of which nothing is left but the score."""
    if not table.weights_lost(variant):  # hardly ever: the winner need not be looked for at every decision
        return []
    return [trial for trial in winner(table, variant) if trial.weights_lost]


def seeds_kept(confirm: int | Literal["auto"], budget: float) -> int:
    """Full runs kept for further seeds of the finalists, as asked for; by default min(4, floor(budget / 4))."""
    return min(4, math.floor(budget / 4)) if confirm == "auto" else confirm
