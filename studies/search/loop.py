"""The library's sampler and trial table on a ledger, with the search's policy or another one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from autolora.search.acquisition import Acquisition, Acquisitions
from autolora.search.policy import Finish, Plan, Promote, Sample, decide
from autolora.search.sampler import Sampler
from autolora.search.surrogate import Surrogate
from autolora.search.trials import Event, Finished, Outcome, Promoted, Sampled, Scored, Trial, TrialTable
from autolora.space import Config
from studies.search.ledger import Ledger

Rule = Callable[["Loop", str], Iterator[None]]
"""Tunes one variant and yields after each training, so that the variants take turns."""


class Loop:
    """One training at a time; what is next is the caller's.

    Args:
        ledger: trains.
        sampler: proposes and judges.
    """

    def __init__(self, ledger: Ledger, sampler: Sampler) -> None:
        self.ledger, self.sampler = ledger, sampler
        self.table = TrialTable(sampler.rungs, ledger.problem.direction)
        self.last = len(sampler.rungs) - 1
        self._surrogate: Surrogate | None = None
        self._acquisitions: dict[str, Acquisitions] = {}
        self._paused_acquisitions: dict[str, Mapping[int, Acquisition]] = {}

    def left(self, variant: str) -> float:
        return self.ledger.left(variant)

    def acquisitions(self, variant: str, room: float = 1.0) -> Acquisitions:
        """What the variant may train next; kept until something happens."""
        if variant not in self._acquisitions:
            self._acquisitions[variant] = self.sampler.acquisitions(self.table, variant, self._model)
        return self._acquisitions[variant]

    def paused_acquisitions(self, variant: str) -> Mapping[int, Acquisition]:
        """Of that, the paused trials alone; kept likewise."""
        if variant not in self._paused_acquisitions:
            self._paused_acquisitions[variant] = self.sampler.paused_acquisitions(self.table, variant, self._model)
        return self._paused_acquisitions[variant]

    def start(self, variant: str, config: Config, target: int = 0) -> Trial:
        """Train a new trial to a rung."""
        number = len(self.table.trials)
        self._apply(Sampled(number, variant, config, 0, "search", target, ""))
        return self._trained(number)

    def promote(self, trial: Trial) -> Trial:
        """Train it on to its next rung."""
        self._apply(Promoted(trial.number, trial.reached + 1, ""))
        return self._trained(trial.number)

    def finish(self, number: int, outcome: Outcome, at: float | None = None) -> None:
        self._apply(Finished(number, outcome, "", at))

    @property
    def _model(self) -> Surrogate:
        """Of all scores; kept until there is another."""
        if self._surrogate is None:
            self._surrogate = self.sampler.surrogate(self.table)
        return self._surrogate

    def _trained(self, number: int) -> Trial:
        """The trial, trained to its target; finished where that is the end or it diverged."""
        trial, rungs = self.table.trials[number], self.table.rungs
        start, stop = (rungs[trial.reached] if trial.scores else 0.0), rungs[trial.target]
        score = self.ledger.train(trial.variant, trial.config, stop, start)
        if score is None:
            at = min(stop, self.ledger.problem.diverges_at(trial.variant, trial.config))
            self.finish(number, "diverged", max(start, at))
        else:
            self._apply(Scored(number, trial.target, score))
            if trial.target == self.last:
                self.finish(number, "complete")
        return trial

    def _apply(self, event: Event) -> None:
        self.table.apply(event)
        self._acquisitions.clear()
        self._paused_acquisitions.clear()
        if isinstance(event, Scored) or (isinstance(event, Finished) and event.outcome == "diverged"):
            self._surrogate = None


def by_policy(loop: Loop) -> None:
    """As Search does, to the end of the budget."""
    plan = Plan(loop.ledger.problem.variants, loop.table.rungs, loop.ledger.budget, confirm=0)
    while True:
        match decide(loop.table, plan, loop.acquisitions, loop.paused_acquisitions):
            case Finish(number, outcome):
                loop.finish(number, outcome)
            case Promote(number):
                loop.promote(loop.table.trials[number])
            case Sample(variant, "search", target, config) if config is not None:
                loop.start(variant, config, target)
            case _:
                return


def by_rule(loop: Loop, rule: Rule) -> None:
    """Each variant by a rule of its own; the one that has most left goes first."""
    running = {variant: rule(loop, variant) for variant in loop.ledger.problem.variants}
    while running:
        variant = max(running, key=lambda name: round(loop.left(name), 9))
        if next(running[variant], StopIteration) is StopIteration:
            del running[variant]
