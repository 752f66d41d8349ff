"""What to do next, as a pure function of the trial table: sample, promote, finish, wait or stop.

Nothing is remembered between calls. That is what makes resuming, retrying and simulating the same thing as running.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from autolora.search import brackets
from autolora.search.brackets import TOLERANCE
from autolora.search.trials import Bracket, Outcome, Purpose, Trial, TrialTable
from autolora.space import Config

FINALISTS = 2
REPLACEMENTS = 2
"""A bracket samples at most this many times its size, diverged trials being replaced while its cost allows."""

HOPELESS = 20
"""Searched trials of a variant that fail in a row before no further bracket is opened: failing at once is free."""


@dataclass(frozen=True)
class Plan:
    """The fixed terms of a study.

    Attributes:
        variants: names, in the order given.
        rungs: fractions of a full run at which a trial is scored.
        budget: cap per variant, in full-run equivalents, everything included.
        confirm: full runs kept for further seeds of the finalists.
    """

    variants: tuple[str, ...]
    rungs: tuple[float, ...]
    budget: float
    confirm: int

    @property
    def last(self) -> int:
        return len(self.rungs) - 1


@dataclass(frozen=True)
class Sample:
    """Start a trial. ``config`` is given where another seed of a known configuration is wanted."""

    variant: str
    purpose: Purpose
    target: int
    bracket: Bracket | None = None
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


def decide(
    table: TrialTable, plan: Plan, in_flight: frozenset[int] | set[int] = frozenset(), exhausted: set[str] | None = None
) -> Action:
    """The next action.

    Args:
        table: everything that has happened.
        plan: the terms.
        in_flight: trials that a worker has now.
        exhausted: variants whose (finite) space holds no untried configuration.
    """
    exhausted = exhausted or set()
    for finish in closings(table, plan, exhausted):
        return finish
    for trial in table.trials:
        if trial.pending and trial.number not in in_flight:
            return Resume(trial.number)
    # The variant that has used the smallest share of its budget goes first, so that all learn from one another.
    # Rounded, since sums of the same shares in another order differ in their last digits: ties go by the order given.
    used = {variant: round(committed(table, plan, variant, variant in exhausted), 9) for variant in plan.variants}
    for variant in sorted(plan.variants, key=used.__getitem__):
        action = _next_of(table, plan, variant, variant in exhausted)
        if action is not None:
            return action
    return Wait() if in_flight else Done()


def committed(table: TrialTable, plan: Plan, variant: str, exhausted: bool) -> float:
    """Full-run equivalents spent, handed out, or promised to the open brackets of a variant."""
    total = table.spent(variant)
    for bracket, trials in _open_brackets(table, plan, variant, exhausted):
        spent = sum(table.charge(trial) for trial in trials)
        total += max(0.0, brackets.cost(bracket.size, plan.rungs) - spent)
    return total


def _open_brackets(
    table: TrialTable, plan: Plan, variant: str, exhausted: bool
) -> Iterator[tuple[Bracket, list[Trial]]]:
    """Brackets with a live trial, or where all have diverged so far and replacements are due."""
    for bracket, trials in table.brackets(variant).items():
        if any(trial.live for trial in trials) or (not exhausted and _has_free_slot(table, plan, bracket, trials)):
            yield bracket, trials


def closings(table: TrialTable, plan: Plan, exhausted: set[str]) -> Iterator[Finish]:
    """Trials that are over: scored at full length, or decided against by their bracket."""
    for variant in plan.variants:
        for trial in table.of(variant):
            if trial.live and plan.last in trial.scores:
                yield Finish(trial.number, "complete", "trained to full length")
        for bracket, trials in _open_brackets(table, plan, variant, variant in exhausted):
            decided = _decided_rung(table, plan, bracket, trials, variant in exhausted)
            if decided is None:
                continue
            rung, ordered, places = decided
            for place, trial in enumerate(ordered[places:], start=places + 1):
                if trial.live:
                    cut = f"the cut was {ordered[places - 1].scores[rung]:.4g}"
                    yield Finish(trial.number, "pruned", f"{_standing(trial, rung, place, ordered, plan)}; {cut}")


def _next_of(table: TrialTable, plan: Plan, variant: str, exhausted: bool) -> Action | None:
    trials = table.of(variant)
    if not any(trial.purpose == "baseline" for trial in trials):
        return Sample(variant, "baseline", plan.last)
    for bracket, members in _open_brackets(table, plan, variant, exhausted):
        action = _bracket_action(table, plan, variant, bracket, members, exhausted)
        if action is not None:
            return action
    if not exhausted:
        new = _new_bracket(table, plan, variant)
        if new is not None:
            return Sample(variant, "search", 0, new)
    if not any(trial.live for trial in trials if trial.purpose != "confirm"):
        return _confirmation(table, plan, variant, exhausted)
    return None


def _bracket_action(
    table: TrialTable, plan: Plan, variant: str, bracket: Bracket, trials: list[Trial], exhausted: bool
) -> Action | None:
    if not exhausted and _has_free_slot(table, plan, bracket, trials):
        return Sample(variant, "search", 0, bracket) if _affordable(table, plan, variant, plan.rungs[0]) else None
    decided = _decided_rung(table, plan, bracket, trials, exhausted)
    if decided is None:
        return None
    rung, ordered, places = decided
    for place, trial in enumerate(ordered[:places], start=1):
        if trial.live and trial.target == rung:
            if not _affordable(table, plan, variant, plan.rungs[rung + 1] - plan.rungs[rung]):
                return None
            return Promote(trial.number, rung + 1, _standing(trial, rung, place, ordered, plan))
    return None


def _affordable(table: TrialTable, plan: Plan, variant: str, cost: float) -> bool:
    """Whether the cap allows it, as it always does unless the bracket was opened under a larger budget."""
    return table.spent(variant) + cost <= plan.budget + TOLERANCE


def _standing(trial: Trial, rung: int, place: int, ordered: list[Trial], plan: Plan) -> str:
    return f"place {place} of {len(ordered)} at {plan.rungs[rung]:.3g} of a run ({trial.scores[rung]:.4g})"


def _has_free_slot(table: TrialTable, plan: Plan, bracket: Bracket, trials: list[Trial]) -> bool:
    """Whether the bracket takes another configuration at its first rung.

    Diverged trials stop early and leave budget over; it buys replacements, so that the bracket ranks as many scores
    as it was meant to.
    """
    if len(trials) >= REPLACEMENTS * bracket.size or any(trial.target > 0 for trial in trials):
        return False
    if sum(trial.healthy for trial in trials) >= bracket.size:
        return False
    spent = sum(table.charge(trial) for trial in trials)
    above = brackets.promotion_cost(bracket.size, plan.rungs)
    return spent + plan.rungs[0] + above <= brackets.cost(bracket.size, plan.rungs) + TOLERANCE


def _decided_rung(
    table: TrialTable, plan: Plan, bracket: Bracket, trials: list[Trial], exhausted: bool
) -> tuple[int, list[Trial], int] | None:
    """The lowest rung with trials waiting for a decision, once all its scores are in.

    Returns:
        The rung, its trials from the best to the worst, and how many of them go on.
    """
    waiting = [trial for trial in trials if trial.live and not trial.pending and trial.reached < plan.last]
    if not waiting:
        return None
    rung = min(trial.reached for trial in waiting)
    if any(trial.pending and trial.target <= rung for trial in trials):
        return None
    if rung == 0 and not exhausted and _has_free_slot(table, plan, bracket, trials):
        return None
    ordered = table.ranked((trial for trial in trials if rung in trial.scores), rung)
    return rung, ordered, brackets.widths(bracket.size, plan.rungs)[rung + 1]


def _new_bracket(table: TrialTable, plan: Plan, variant: str) -> Bracket | None:
    recent = [trial for trial in table.of(variant) if trial.purpose == "search"][-HOPELESS:]
    if len(recent) == HOPELESS and not any(trial.healthy for trial in recent):
        return None
    confirmed = sum(trial.purpose == "confirm" for trial in table.of(variant))
    # Under a budget that has grown, the winner of another bracket needs a seed to be judged beside the confirmed.
    kept = max(plan.confirm - confirmed, 1 if plan.confirm and confirmed else 0)
    available = plan.budget - kept - committed(table, plan, variant, exhausted=False)
    opened = len(table.brackets(variant))
    size = brackets.fitting(available, plan.rungs, first=not opened)
    return None if size is None else Bracket(opened, size)


def _confirmation(table: TrialTable, plan: Plan, variant: str, exhausted: bool) -> Sample | None:
    """Another seed for the finalist that has fewest; one seed beyond the plan where brackets left a full run over."""
    trials = table.of(variant)
    leading = finalists(table, variant, FINALISTS)
    used = sum(trial.purpose == "confirm" and trial.config in leading for trial in trials)
    if plan.confirm == 0 or used > plan.confirm:
        return None
    if committed(table, plan, variant, exhausted) + 1.0 > plan.budget + TOLERANCE:
        return None
    contenders = leading if plan.confirm > 1 or used else leading[:1]
    if not contenders:
        return None
    runs = {config: [trial for trial in trials if trial.config == config] for config in contenders}
    config = min(contenders, key=lambda candidate: len(runs[candidate]))
    return Sample(
        variant,
        "confirm",
        plan.last,
        config=config,
        seed=max(trial.seed for trial in runs[config]) + 1,
        reason=f"another seed of the finalist of trial {runs[config][0].number}",
    )


def finalists(table: TrialTable, variant: str, count: int) -> list[Config]:
    """The best configurations by their first seed at full length, those that diverged on any seed left out."""
    last = len(table.rungs) - 1
    unstable = {trial.config for trial in table.of(variant) if not trial.healthy}
    first = [t for t in table.complete(variant) if t.purpose != "confirm" and t.config not in unstable]
    return [trial.config for trial in table.ranked(first, last)[:count]]
