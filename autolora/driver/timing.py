"""Ends a study within its time budget: what may still be spent, when to stop, and what is kept for the conclusion."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

from autolora.driver.clock import Clock
from autolora.driver.paces import Paces
from autolora.search import Job, Search
from autolora.search.shares import lacking, limits
from autolora.trainers import Interrupted, Outcome, Progress, SignOfLife

MARGIN = 0.02
"""Share of a time budget that stays unused, for what nothing has measured."""
LEAST_MARGIN, MOST_MARGIN = 2.0, 60.0
"""Seconds of it at least, and at most."""
CLOSING = 8.0
"""Seconds in which workers of a cluster end, beside what their segments take to write a checkpoint."""
RELOADING = 0.5
"""Share of the time of the first load that the base, which was left to workers, takes to be there again: libraries are
loaded once, and files are in the machine's memory."""
EXPORT = 1.0
"""Seconds that an export takes beside attaching the adapter, before one was measured."""


class TimeUp(Interrupted):
    """The time budget has ended: what is trained is checkpointed, and the study concludes."""


@dataclass
class Timing:
    """The time budget of a start, and what it allows.

    Attributes:
        clock: of the study.
        variants: that are tuned.
        paces: of its trials.
        in_process: whether trials are trained in this process, which then cannot end before they do.
        loading: seconds that loading model and data has taken.
        test_cost: time of a test over that of a full-length evaluation; 0 without a test.
    """

    clock: Clock
    variants: Sequence[str]
    paces: Paces
    in_process: bool
    loading: float = 0.0
    test_cost: float = 0.0
    _warned: bool = field(default=False, repr=False)

    def left(self, search: Search) -> float:
        """Seconds until the last segment must have ended."""
        assert self.clock.limit is not None
        margin = min(max(LEAST_MARGIN, MARGIN * self.clock.limit), MOST_MARGIN)
        closing = 0.0 if self.in_process else CLOSING + RELOADING * self.loading
        seeds = {name: 1 + search.plan.of(name).confirm for name in search.plan.variants}
        concluding = sum(self.export() + count * self.test(name) for name, count in seeds.items())
        return self.clock.left() - margin - closing - max(concluding, self.clock.concluding)

    def export(self) -> float:
        """Seconds that exporting a variant takes, or a bit more."""
        costs = [self.paces.cost(name) for name in self.variants]
        return EXPORT + max((cost.overhead for cost in costs if cost is not None), default=0.0)

    def test(self, variant: str) -> float:
        """Seconds that a test takes of one trial of a variant."""
        cost = self.paces.cost(variant)
        return 0.0 if cost is None or not self.test_cost else cost.overhead + self.test_cost * cost.evaluation

    def ask(self, search: Search, workers: int) -> Job | object | None:
        """The next job that ends in time; else as :meth:`autolora.search.Search.ask`.

        Where each variant's share of the time is too small for anything, one gets all of it: one without a full run, or
        else the one that has spent the least.
        """
        self._allow(search, workers)
        job = search.ask()
        if job is not None:
            return job
        table = search.table
        for name in sorted(search.plan.variants, key=lambda name: (bool(table.leaders(name)), table.spent(name))):
            self._allow(search, workers, alone=name)
            job = search.ask()
            if job is not None:
                return job
        return None

    def _allow(self, search: Search, workers: int, alone: str | None = None) -> None:
        """Tell the search what time allows from now on."""
        left = self.left(search)
        pending = sum(self.paces.left(running) for running in self.paces.running.values())
        found = limits(search.table, search.plan, left, workers, pending, self.paces.seconds, alone=alone)
        search.limit(found)
        if found and not self._warned:
            self._warn_if_too_short(search, left)

    def _warn_if_too_short(self, search: Search, left: float) -> None:
        """Say once that no full run fits any more, where there is none."""
        table = search.table
        needs = []
        for name in search.plan.variants:
            lacks = lacking(table, name)
            if not lacks:
                return
            needs.append(self.paces.seconds(name, None, 1.0 - lacks, 1.0) or 0.0)
        if min(needs) <= left:
            return
        self._warned = True
        warnings.warn(
            f"time_budget: not even one full run fits: the first would need about {min(needs):.3g} s more, and "
            f"{max(0.0, left):.3g} s are left to train in. Short runs are trained instead, whose scores are no results "
            "to rely on. A larger time_budget goes on with them",
            stacklevel=2,
        )

    def check(self, search: Search) -> None:
        """Raise :class:`TimeUp` if time has ended for all that is trained."""
        if self.left(search) <= 0:
            raise TimeUp

    def stepped(self, search: Search, progress: Progress) -> None:
        """Take in an optimizer step; raise :class:`TimeUp` if no time is left, or not enough for the score that comes
        next, which cannot be interrupted.
        """
        if not isinstance(progress, SignOfLife):
            self.paces.stepped(progress)
        self.check(search)
        running = self.paces.running.get(progress.trial)
        if running is None or not self.in_process:
            return
        left, evaluation = self.left(search), self.paces.evaluation(running.job)
        if left < evaluation and self.paces.left(running) > left:
            raise TimeUp

    def told(self, search: Search, job: Job, outcome: Outcome) -> None:
        """Take in a segment that came back, before the search is told."""
        self.paces.ended(job, outcome, search.table.trials[job.trial].seconds)

    def reason(self, search: Search) -> str:
        """Why the search ended before its budget; empty if it did not."""
        search.limit({})
        if search.exhausted:
            return ""
        spent = {name: search.table.spent(name) for name in search.plan.variants}
        said = ", ".join(f"{name} {value:.2f}" for name, value in spent.items())
        return (
            f"time_budget, {self.clock.limit:g} s, ended the search at {said} of {search.plan.budget:g} full runs; a "
            "larger one goes on"
        )
