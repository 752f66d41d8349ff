"""The trial table: what has happened so far, folded from events.

The study stores the same events in Optuna (:mod:`autolora.study`); a table rebuilt from it equals the one in memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import singledispatchmethod
from typing import Literal

from autolora.space import Config

Purpose = Literal["baseline", "search", "confirm"]
Outcome = Literal["complete", "pruned", "diverged", "infeasible"]


@dataclass(frozen=True)
class Sampled:
    """A new trial is handed out, to be trained to rung ``target``."""

    number: int
    variant: str
    config: Config
    seed: int
    purpose: Purpose
    target: int
    origin: str


@dataclass(frozen=True)
class Promoted:
    """A paused trial may go on to rung ``target``."""

    number: int
    target: int
    reason: str


@dataclass(frozen=True)
class Scored:
    """A trial reached a rung. ``seconds``: wall time of its training so far."""

    number: int
    rung: int
    value: float
    seconds: float = 0.0


@dataclass(frozen=True)
class Finished:
    """A trial is over. ``at``: fraction of a full run where it stopped between rungs (diverged, infeasible)."""

    number: int
    outcome: Outcome
    reason: str
    at: float | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Lost:
    """A worker died with the trial; it is handed out again, and what is repeated is not charged."""

    number: int


Event = Sampled | Promoted | Scored | Finished | Lost


@dataclass
class Trial:
    """One configuration with one seed, and what is known of it."""

    number: int
    variant: str
    config: Config
    seed: int
    purpose: Purpose
    target: int
    origin: str
    scores: dict[int, float] = field(default_factory=dict)
    promotions: list[str] = field(default_factory=list)
    outcome: Outcome | None = None
    reason: str = ""
    stopped_at: float | None = None
    seconds: float = 0.0
    lost: int = 0

    @property
    def reached(self) -> int:
        """Highest rung with a score; -1 before the first."""
        return max(self.scores, default=-1)

    @property
    def live(self) -> bool:
        return self.outcome is None

    @property
    def pending(self) -> bool:
        """Handed out, and not yet scored where it was sent."""
        return self.live and self.reached < self.target

    @property
    def healthy(self) -> bool:
        """Neither diverged nor infeasible, so far."""
        return self.outcome not in ("diverged", "infeasible")


class TrialTable:
    """All trials of a study, in order of their numbers.

    Args:
        rungs: fractions of a full run, ascending, the last one 1.
        direction: "minimize" or "maximize".
        events: the past.
        upfront: full-run equivalents charged to each variant for what was spent before the first trial.
    """

    def __init__(
        self, rungs: tuple[float, ...], direction: str, events: Iterable[Event] = (), upfront: float = 0.0
    ) -> None:
        self.rungs = rungs
        self.upfront = upfront
        self.sign = 1.0 if direction == "minimize" else -1.0
        self.trials: list[Trial] = []
        self._by_variant: dict[str, list[Trial]] = {}
        for event in events:
            self.apply(event)

    @singledispatchmethod
    def apply(self, event: Event) -> None:
        """Fold one event into the table."""
        raise TypeError(f"not an event: {event!r}")

    @apply.register
    def _(self, event: Sampled) -> None:
        trial = Trial(
            number=event.number,
            variant=event.variant,
            config=event.config,
            seed=event.seed,
            purpose=event.purpose,
            target=event.target,
            origin=event.origin,
        )
        self.trials.append(trial)
        self._by_variant.setdefault(event.variant, []).append(trial)

    @apply.register
    def _(self, event: Promoted) -> None:
        trial = self.trials[event.number]
        trial.target = event.target
        trial.promotions.append(event.reason)

    @apply.register
    def _(self, event: Scored) -> None:
        trial = self.trials[event.number]
        trial.scores[event.rung] = event.value
        trial.seconds = max(trial.seconds, event.seconds)

    @apply.register
    def _(self, event: Finished) -> None:
        trial = self.trials[event.number]
        trial.outcome, trial.reason, trial.stopped_at = event.outcome, event.reason, event.at
        trial.seconds = max(trial.seconds, event.seconds)

    @apply.register
    def _(self, event: Lost) -> None:
        self.trials[event.number].lost += 1

    def of(self, variant: str) -> list[Trial]:
        return self._by_variant.get(variant, [])

    def fraction(self, trial: Trial) -> float:
        """Share of a full run that the trial has been trained for, as far as it is known."""
        reached = self.rungs[trial.reached] if trial.scores else 0.0
        return max(reached, trial.stopped_at or 0.0)

    def charge(self, trial: Trial) -> float:
        """What the trial costs its variant: the share trained, and for a pending one the share it was sent to.

        A baseline is promised a full run from the start.
        """
        if trial.purpose == "baseline" and trial.live:
            return 1.0
        return self.rungs[trial.target] if trial.pending else self.fraction(trial)

    def spent(self, variant: str) -> float:
        """Full-run equivalents charged to a variant, work handed out and its share of the prior's cost included."""
        return self.upfront + sum(self.charge(trial) for trial in self.of(variant))

    def complete(self, variant: str) -> list[Trial]:
        """Trials scored at full length."""
        last = len(self.rungs) - 1
        return [trial for trial in self.of(variant) if trial.healthy and last in trial.scores]

    def searched(self, variant: str) -> list[Trial]:
        """Of those, each configuration's first: further seeds were chosen for being of a finalist."""
        return [trial for trial in self.complete(variant) if trial.purpose != "confirm"]

    def paused(self, variant: str) -> list[Trial]:
        """Trials that wait at a rung below the last to be chosen; a baseline is trained to the end unasked."""
        last = len(self.rungs) - 1
        return [
            trial
            for trial in self.of(variant)
            if trial.live and not trial.pending and trial.reached < last and trial.purpose != "baseline"
        ]

    def ranked(self, trials: Iterable[Trial], rung: int) -> list[Trial]:
        """Trials by their score at a rung, the best first; ties go to the earlier trial."""
        return sorted(trials, key=lambda trial: (self.sign * trial.scores[rung], trial.number))
