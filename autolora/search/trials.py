"""The trial table: what has happened so far, folded from events.

The study stores the same events in Optuna (:mod:`autolora.study.study`); a table rebuilt from it equals the one in
memory.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from fractions import Fraction
from operator import attrgetter
from typing import Literal

from autolora.scores import Scores
from autolora.search.rungs import WITHIN, examples_seen, own_examples, steps_until
from autolora.space import Config

Direction = Literal["minimize", "maximize"]
Purpose = Literal["baseline", "search", "confirm", "repeat"]
"""Why a trial is trained: what the user runs today; searched; another seed of a finalist; again, as its weights were
lost."""
Outcome = Literal["complete", "pruned", "diverged", "infeasible"]


@dataclass(frozen=True)
class Sampled:
    """A new trial is handed out, to be trained to rung ``target``. ``revision`` is its variant's at that time."""

    number: int
    variant: str
    config: Config
    seed: int
    purpose: Purpose
    target: int
    origin: str
    revision: int = 1


@dataclass(frozen=True)
class Promoted:
    """A paused trial may go on to rung ``target``."""

    number: int
    target: int
    reason: str


@dataclass(frozen=True)
class Scored:
    """A trial reached a rung.

    Attributes:
        number: of the trial.
        rung: index among the rungs.
        value: the score.
        seconds: wall time of the trial's training so far.
        rows: of a full-length score, what each evaluation row adds to it. Without rows in it if the metric gives one
            number for all rows; None if it is not known.
        metrics: what was reported beside the score, by name.
    """

    number: int
    rung: int
    value: float
    seconds: float = 0.0
    rows: Scores | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Finished:
    """A trial is over.

    Attributes:
        number: of the trial.
        outcome, reason: how and why it ended.
        at: fraction of a full run where it stopped between rungs (diverged, infeasible).
        seconds: wall time of the trial's training.
        too_large: of an infeasible one, whether it is that for lack of memory.
    """

    number: int
    outcome: Outcome
    reason: str
    at: float | None = None
    seconds: float = 0.0
    too_large: bool = False


@dataclass(frozen=True)
class Lost:
    """A worker died with the trial; it is handed out again, and what is repeated is not charged."""

    number: int


@dataclass(frozen=True)
class WeightsLost:
    """What a completed trial has trained cannot be used any more; its score stands.

    ``reason`` is in words; where it is empty, what was lost is there again.
    """

    number: int
    reason: str


Event = Sampled | Promoted | Scored | Finished | Lost | WeightsLost


@dataclass
class Trial:
    """One configuration with one seed, and what is known of it.

    ``too_large``: infeasible for lack of memory.
    ``metrics`` is what was reported beside the score at each rung. ``rows`` is what each evaluation row adds to the
    full-length score, see :class:`Scored`; ``weights_lost`` why what was trained cannot be used any more, empty if it
    can.
    """

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
    rows: Scores | None = field(default=None, repr=False)
    metrics: dict[int, Mapping[str, float]] = field(default_factory=dict)
    revision: int = 1
    weights_lost: str = ""
    too_large: bool = False

    @property
    def first(self) -> bool:
        """Whether it is the first of its configuration: further seeds and repetitions were chosen for its score."""
        return self.purpose in ("baseline", "search")

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


_NUMBER = attrgetter("number")


def _whole(config: Config) -> float:
    return 1.0


class TrialTable:
    """All trials of a study, in order of their numbers.

    What a decision asks for is filed as events come in, so that it costs as much after ten thousand trials as after
    ten. Trials change by events alone.

    Args:
        rungs: fractions of a full run, ascending, the last one 1.
        direction: "minimize" or "maximize".
        events: the past.
        upfront: full-run equivalents charged to each variant for what was spent before the first trial.
        examples: training examples of a full run, where trials are trained in whole optimizer steps; None: where they
            are trained to a rung exactly.
        scored_rows: evaluation rows that each rung is scored on; empty if all have the same.
        length: share of a full run that a configuration trains for; None: all train for a whole one.
        cheapest: the smallest of those shares that is searched.

    Attributes:
        trials: all of them.
        scored: number of scores.
    """

    def __init__(
        self,
        rungs: tuple[float, ...],
        direction: str,
        events: Iterable[Event] = (),
        upfront: float = 0.0,
        examples: int | None = None,
        scored_rows: tuple[int, ...] = (),
        length: Callable[[Config], float] | None = None,
        cheapest: float = 1.0,
    ) -> None:
        self.rungs = rungs
        self.length = length or _whole
        self.cheapest = cheapest
        self.scored_rows = scored_rows
        self.examples = examples
        self.upfront = upfront
        self.sign = 1.0 if direction == "minimize" else -1.0
        self.trials: list[Trial] = []
        self.scored = 0
        self._by_variant: dict[str, list[Trial]] = {}
        self._tried: defaultdict[str, set[Config]] = defaultdict(set)
        self._filed: defaultdict[tuple[str, str | None], list[Trial]] = defaultdict(list)
        # Exact, so that neither the order of events nor their number shows in a sum.
        self._charged: dict[str, Fraction] = {}
        for event in events:
            self.apply(event)

    def emptied(self) -> TrialTable:
        """The table before the first event."""
        return TrialTable(
            self.rungs,
            "minimize" if self.sign > 0 else "maximize",
            (),
            self.upfront,
            self.examples,
            self.scored_rows,
            length=self.length,
            cheapest=self.cheapest,
        )

    def apply(self, event: Event) -> None:
        """Fold one event into the table."""
        if not isinstance(event, Sampled):
            self._unfile(self.trials[event.number])
        self._fold(event)
        self._file(self.trials[event.number])

    # By match, since functools.singledispatchmethod of Python 3.13.0 to 3.13.2 keeps every object alive that it was
    # called on (CPython issue 127750).
    def _fold(self, event: Event) -> None:
        match event:
            case Sampled():
                self._fold_sampled(event)
            case Promoted():
                self._fold_promoted(event)
            case Scored():
                self._fold_scored(event)
            case Finished():
                self._fold_finished(event)
            case Lost():
                self._fold_lost(event)
            case WeightsLost():
                self.trials[event.number].weights_lost = event.reason
            case _:
                raise TypeError(f"not an event: {event!r}")

    def _fold_sampled(self, event: Sampled) -> None:
        trial = Trial(
            number=event.number,
            variant=event.variant,
            config=event.config,
            seed=event.seed,
            purpose=event.purpose,
            target=event.target,
            origin=event.origin,
            revision=event.revision,
        )
        self.trials.append(trial)
        self._by_variant.setdefault(event.variant, []).append(trial)
        self._tried[event.variant].add(event.config)

    def _fold_promoted(self, event: Promoted) -> None:
        trial = self.trials[event.number]
        trial.target = event.target
        trial.promotions.append(event.reason)

    def _fold_scored(self, event: Scored) -> None:
        trial = self.trials[event.number]
        trial.scores[event.rung] = event.value
        trial.seconds = max(trial.seconds, event.seconds)
        if event.metrics:
            trial.metrics[event.rung] = event.metrics
        if event.rows is not None:
            trial.rows = event.rows

    def _fold_finished(self, event: Finished) -> None:
        trial = self.trials[event.number]
        trial.outcome, trial.reason, trial.stopped_at = event.outcome, event.reason, event.at
        trial.too_large = event.too_large
        trial.seconds = max(trial.seconds, event.seconds)

    def _fold_lost(self, event: Lost) -> None:
        self.trials[event.number].lost += 1

    def _file(self, trial: Trial) -> None:
        for kind, variant in self._files(trial):
            insort(self._filed[kind, variant], trial, key=self._order(kind))
        self._charge(trial.variant, Fraction(self.charge(trial)))
        self.scored += len(trial.scores)

    def _unfile(self, trial: Trial) -> None:
        """The inverse of :meth:`_file`, before the trial changes."""
        for kind, variant in self._files(trial):
            filed, order = self._filed[kind, variant], self._order(kind)
            del filed[bisect_left(filed, order(trial), key=order)]
        self._charge(trial.variant, -Fraction(self.charge(trial)))
        self.scored -= len(trial.scores)

    def _files(self, trial: Trial) -> Iterator[tuple[str, str | None]]:
        """Kinds of trials that this one is of now, among those of its variant or of all (None)."""
        full = len(self.rungs) - 1 in trial.scores
        if trial.purpose == "confirm":
            yield "confirm", trial.variant
        if trial.weights_lost:
            yield "weights lost", trial.variant
        if trial.too_large:
            yield "too large", trial.variant
        if trial.healthy and full:
            yield "complete", trial.variant
            if trial.first:
                yield "searched", trial.variant
        if trial.pending:
            yield "pending", None
            yield "pending", trial.variant
        elif trial.live and full:
            yield "trained", None
        elif trial.live and trial.purpose != "baseline":
            yield "paused", trial.variant
        elif not trial.live and trial.outcome != "complete":
            yield "discarded", None

    def _order(self, kind: str) -> Callable[[Trial], tuple[float, int] | int]:
        return self._place if kind == "searched" else _NUMBER

    def _place(self, trial: Trial) -> tuple[float, int]:
        """By the score at full length, the best first; ties go to the earlier trial."""
        return self.sign * trial.scores[len(self.rungs) - 1], trial.number

    def _charge(self, variant: str, share: Fraction) -> None:
        self._charged[variant] = self._charged.get(variant, Fraction(self.upfront)) + share

    def of(self, variant: str) -> list[Trial]:
        return self._by_variant.get(variant, [])

    def tried(self, variant: str) -> Set[Config]:
        """Configurations that a variant has had a trial of."""
        return self._tried[variant]

    def share(self, config: Config, rung: int) -> float:
        """Share of a full run that a trial of the configuration has been trained for at a rung; before the first, 0."""
        if rung < 0:
            return 0.0
        length, stop = self.length(config), self.stop(config, rung)
        if self.examples is None:
            return stop * length
        own = own_examples(self.examples, length)
        return examples_seen(steps_until(stop, own, config.batch_size), own, config.batch_size) / self.examples

    def stop(self, config: Config, rung: int) -> float:
        """Share of its own run at which a trial of the configuration is scored at a rung."""
        return 1.0 if rung == len(self.rungs) - 1 else min(1.0, self.rungs[rung] / self.length(config))

    def cost(self, config: Config) -> float:
        """Full runs that a trial of the configuration costs; 1 unless durations are searched."""
        return self.share(config, len(self.rungs) - 1)

    def end(self, config: Config, reached: int, whole: bool = True) -> float:
        """Share of a full run at which a trial ends that goes on from a rung: its own end, or else the next rung."""
        return self.cost(config) if whole else self.share(config, self.rung_from(config, reached + 1))

    def rung_from(self, config: Config, rung: int) -> int:
        """The first rung from this one on that a trial of the configuration comes to before its end; else the last."""
        last, length = len(self.rungs) - 1, self.length(config)
        return next((at for at in range(rung, last) if self.rungs[at] < length * (1 - WITHIN)), last)

    def fraction(self, trial: Trial) -> float:
        """Share of a full run that the trial has been trained for, as far as it is known."""
        return max(self.share(trial.config, trial.reached), trial.stopped_at or 0.0)

    def charge(self, trial: Trial) -> float:
        """What the trial costs its variant: the share trained, and for a pending one the share it was sent to.

        A baseline is promised its full run from the start.
        """
        if trial.purpose == "baseline" and trial.live:
            return self.cost(trial.config)
        return self.share(trial.config, trial.target) if trial.pending else self.fraction(trial)

    def spent(self, variant: str) -> float:
        """Full-run equivalents charged to a variant, work handed out and its share of the prior's cost included."""
        return float(self._charged.get(variant, self.upfront))

    def complete(self, variant: str) -> list[Trial]:
        """Trials scored at full length."""
        return list(self._filed["complete", variant])

    def searched(self, variant: str) -> list[Trial]:
        """Of those, each configuration's first: further seeds were chosen for being of a finalist."""
        return sorted(self.leaders(variant), key=_NUMBER)

    def leaders(self, variant: str) -> Sequence[Trial]:
        """The searched ones by their score at full length, the best first."""
        return self._filed["searched", variant]

    def paused(self, variant: str) -> list[Trial]:
        """Trials that wait at a rung below the last to be chosen; a baseline is trained to the end unasked."""
        return list(self._filed["paused", variant])

    def pending(self, variant: str | None = None) -> list[Trial]:
        """Trials that were handed out and are not back, of one variant or of all."""
        return list(self._filed["pending", variant])

    def confirming(self, variant: str) -> list[Trial]:
        """Further seeds of finalists."""
        return list(self._filed["confirm", variant])

    def weights_lost(self, variant: str) -> list[Trial]:
        """Completed trials of which nothing is left but the score."""
        return list(self._filed["weights lost", variant])

    def too_large(self, variant: str) -> list[Trial]:
        """Trials that ended for lack of memory."""
        return list(self._filed["too large", variant])

    def trained(self) -> list[Trial]:
        """Trials that are scored at full length and still open."""
        return list(self._filed["trained", None])

    def discarded(self) -> list[Trial]:
        """Trials that ended early and will never be trained on."""
        return list(self._filed["discarded", None])

    def recall_rows(self, rows: Mapping[int, Scores]) -> None:
        """Add what evaluation rows added to full-length scores, by trial number, to trials whose record lacks it."""
        for number, scores in rows.items():
            self.trials[number].rows = scores

    def ranked(self, trials: Iterable[Trial], rung: int) -> list[Trial]:
        """Trials by their score at a rung, the best first; ties go to the earlier trial."""
        return sorted(trials, key=lambda trial: (self.sign * trial.scores[rung], trial.number))
