"""How long trials take: what their segments took, by variant and by what of a configuration costs time."""

from __future__ import annotations

import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TypeAlias

from autolora.search import Job
from autolora.search.trials import Trial, TrialTable
from autolora.space import Config, registry
from autolora.space.config import Value
from autolora.trainers import Outcome, Progress

REMEMBERED = 5
"""Segments of a kind that a pace is the mean of: the newest, as machines get slower and faster."""
FEWEST_STEPS = 3
"""Optimizer steps of a running segment from which its pace is believed."""

Kind: TypeAlias = "tuple[str, tuple[Value | None, ...]]"


@dataclass
class Running:
    """A segment that a worker has.

    Attributes:
        job: what is trained.
        since: when it was handed out.
        first, last: (time, optimizer step) heard of first and last; None before.
        steps: of the trial's own run; 0 before.
    """

    job: Job
    since: float
    first: tuple[float, int] | None = None
    last: tuple[float, int] | None = None
    steps: int = 0

    def full(self) -> float | None:
        """Seconds of the optimizer steps of a full run, by those heard of; None before FEWEST_STEPS."""
        if self.first is None or self.last is None or self.last[1] - self.first[1] < FEWEST_STEPS - 1:
            return None
        own = self.steps * (self.last[0] - self.first[0]) / (self.last[1] - self.first[1])
        return own / self.job.length


@dataclass
class Pace:
    """What segments of one kind took, in seconds.

    Attributes:
        training: optimizer steps of a full run.
        evaluation: of all rows.
        overhead: the rest of a segment, such as attaching the adapter and writing a checkpoint.
    """

    training: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    evaluation: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    overhead: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def mean(self) -> Cost | None:
        """Of each; None if there is nothing yet."""
        if not self.training:
            return None
        return Cost(*(fmean(each) if each else 0.0 for each in (self.training, self.evaluation, self.overhead)))


@dataclass(frozen=True)
class Cost:
    """What a configuration takes, in seconds: means of a :class:`Pace`."""

    training: float
    evaluation: float = 0.0
    overhead: float = 0.0

    def scaled(self, factor: float) -> Cost:
        return Cost(self.training * factor, self.evaluation, self.overhead)


class Paces:
    """What trials take, as it is learned.

    Args:
        table: trials of earlier starts, and of this one.
        scored_rows: evaluation rows that each rung is scored on; empty if all have the same.
        costs: time of a step of each variant, over that of plain LoRA.
        now: the time in seconds.

    Attributes:
        running: segments that workers have, by trial.
    """

    def __init__(
        self,
        table: TrialTable,
        scored_rows: Sequence[int] = (),
        costs: Mapping[str, float] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.running: dict[int, Running] = {}
        self._table, self._costs, self._now = table, costs or {}, now
        rungs = len(table.rungs)
        self._rows = [rows / scored_rows[-1] for rows in scored_rows] if scored_rows else [1.0] * rungs
        self._paces: defaultdict[Kind, Pace] = defaultdict(Pace)
        self._handing = math.inf
        for trial in table.trials:  # what its parts took is not recorded
            share = table.fraction(trial)
            if trial.seconds > 0 and share > 0 and (trial.outcome == "complete" or not self._known(trial)):
                self._paces[_kind(trial.variant, trial.config)].training.append(trial.seconds / share)

    def _known(self, trial: Trial) -> bool:
        return bool(self._paces[_kind(trial.variant, trial.config)].training)

    def started(self, job: Job) -> None:
        """A segment goes to a worker."""
        self.running[job.trial] = Running(job, self._now())

    def stepped(self, progress: Progress) -> None:
        """An optimizer step was heard of."""
        running = self.running.get(progress.trial)
        if running is None or progress.step < 1 or (running.last and progress.step <= running.last[1]):
            return
        running.last, running.steps = (self._now(), progress.step), progress.steps
        running.first = running.first or running.last

    def lost(self, trial: int) -> None:
        """A segment came back with nothing."""
        self.running.pop(trial, None)

    def ended(self, job: Job, outcome: Outcome, before: float) -> None:
        """A segment came back.

        Args:
            job, outcome: of it.
            before: seconds of the trial until then.
        """
        running = self.running.pop(job.trial, None)
        share = (outcome.at - job.start) * job.length
        took = outcome.seconds - before
        if outcome.kind != "scored" or share <= 0 or took <= 0:
            return
        full = None if running is None else running.full()
        trained = (took - outcome.evaluation) / share if full is None else full
        pace = self._paces[_kind(job.variant, job.config)]
        pace.training.append(max(0.0, trained))
        if running is not None:  # the least, as others had a worker start for them
            self._handing = max(0.0, min(self._handing, self._now() - running.since - took))
        pace.overhead.append(max(0.0, took - outcome.evaluation - trained * share))
        pace.evaluation.append(outcome.evaluation / self._rows[job.rung])

    def cost(self, variant: str, config: Config | None = None) -> Cost | None:
        """What a full run takes: of a configuration as of those alike, or else as the slowest of the variant, or as
        others by the time of a step. None if nothing is known.
        """
        kinds = {kind: found for kind, pace in self._paces.items() if (found := pace.mean()) is not None}
        for running in self.running.values():
            kind, full = _kind(running.job.variant, running.job.config), running.full()
            if full is not None and kind not in kinds:
                kinds[kind] = Cost(full)
        if config is not None and _kind(variant, config) in kinds:
            return kinds[_kind(variant, config)]
        own = [found for (name, _), found in kinds.items() if name == variant]
        if own:
            return max(own, key=self._whole)
        step = self._costs.get(variant, 1.0)
        others = [found.scaled(step / self._costs.get(name, 1.0)) for (name, _), found in kinds.items()]
        return max(others, key=self._whole, default=None)

    def seconds(self, variant: str, config: Config | None, begin: float, end: float) -> float | None:
        """What training from one share of a full run to another takes, with the scores at rungs on the way; None if
        nothing is known.
        """
        cost = self.cost(variant, config)
        if cost is None:
            return None
        return cost.training * max(0.0, end - begin) + self._scores(cost, begin, end, config)

    def left(self, running: Running) -> float:
        """What is left of a segment that a worker has; 0 if nothing is known."""
        job = running.job
        cost = self.cost(job.variant, job.config)
        if cost is None:
            return 0.0
        at = job.start if running.last is None else running.last[1] / running.steps
        return cost.training * max(0.0, job.stop - at) * job.length + cost.evaluation * self._rows[job.rung]

    def evaluation(self, job: Job) -> float:
        """What scoring a segment takes; 0 if that is not known."""
        cost = self.cost(job.variant, job.config)
        return 0.0 if cost is None else cost.evaluation * self._rows[job.rung]

    def _whole(self, cost: Cost) -> float:
        return cost.training + self._scores(cost, 0.0, 1.0)

    def _scores(self, cost: Cost, begin: float, end: float, config: Config | None = None) -> float:
        table = self._table
        if config is None:
            shares = dict(enumerate(table.rungs))
        else:  # of a shorter run, the rungs that it comes to
            rungs = range(len(table.rungs))
            shares = {rung: table.share(config, rung) for rung in rungs if table.rung_from(config, rung) == rung}
        passed = [rung for rung, share in shares.items() if begin < share - 1e-9 <= end]
        handing = self._handing if math.isfinite(self._handing) else 0.0
        return sum(handing + cost.overhead + cost.evaluation * self._rows[rung] for rung in passed)


def _kind(variant: str, config: Config) -> Kind:
    return variant, tuple(dimension.cost_key(config) for dimension in registry())
