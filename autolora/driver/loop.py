"""Ask, train, tell, until the search is over."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from autolora.analysis.best import spare
from autolora.driver.callbacks import Callback
from autolora.driver.timing import Timing
from autolora.driver.weights import Weights
from autolora.errors import AutoloraError
from autolora.execution import Executor, LostWorker
from autolora.search import WAIT, Job, Search
from autolora.search.runs import winner
from autolora.trainers import Interrupted, Outcome, Progress, SignOfLife, checkpoint
from autolora.trainers.places import Location

LOST_IN_A_ROW = 10
"""Workers that a trial may lose without getting further before it counts as infeasible; or the cluster as broken, where
nothing has come back from it."""


class WorkersError(AutoloraError, RuntimeError):
    """Workers are lost again and again."""


@dataclass
class Loop:
    """One search on one executor.

    Attributes:
        search: what is asked and told.
        keep: completed trials of a variant whose weights stay, see :class:`autolora.spec.Spec`.
        checkpoints: root of the trials' checkpoints.
        callbacks: told of everything.
        weights: of the completed trials.
        timing: ends the search in time; None without a time budget.
        seconds: wall time by what it was spent on.
        losses: workers that each trial has lost without getting further.
        furthest: optimizer steps that each trial was seen to have taken.
        returned: jobs that have come back.
        removed: trials whose checkpoints or weights have been removed.
    """

    search: Search
    keep: int
    checkpoints: Location
    callbacks: Callback
    weights: Weights
    timing: Timing | None = None
    seconds: dict[str, float] = field(default_factory=lambda: {"total": 0.0, "training": 0.0, "driver": 0.0})
    losses: Counter[int] = field(default_factory=Counter)
    furthest: dict[int, int] = field(default_factory=dict)
    returned: int = 0
    removed: set[int] = field(default_factory=set)

    def run(self, executor: Executor, asked_to_stop: Callable[[], bool]) -> None:
        """Work until the search is over.

        Args:
            executor: trains the jobs.
            asked_to_stop: looked at between jobs and after optimizer steps.

        Raises:
            TimeUp: the time budget has ended; trials in progress have been checkpointed.
            Interrupted: it was asked to stop; trials in progress have been checkpointed.
            WorkersError: workers are lost again and again.
        """
        jobs: dict[int, Job] = {}

        def on_step(progress: Progress) -> None:
            if progress.step > self.furthest.get(progress.trial, 0):
                self.furthest[progress.trial] = progress.step
                self.losses.pop(progress.trial, None)
            if not isinstance(progress, SignOfLife):
                self.callbacks.on_step(progress)
            if asked_to_stop():
                raise Interrupted
            if self.timing is not None:
                self.timing.stepped(self.search, progress)

        self.note_losses()  # at once, so that there is budget left to train them again
        while True:
            mark = time.monotonic()
            if self.timing is not None:
                self.timing.check(self.search)
            while len(jobs) < executor.capacity and not asked_to_stop():
                job = self._ask(executor.capacity)
                if job is None or job is WAIT:
                    break
                assert isinstance(job, Job)
                jobs[job.trial] = job
                if self.timing is not None:
                    self.timing.paces.started(job)
                self.callbacks.on_segment_start(self.search, job)
                executor.submit((job,))
            self.seconds["driver"] += time.monotonic() - mark
            if asked_to_stop():
                raise Interrupted
            if not jobs:
                if self.note_losses():
                    continue
                return
            mark = time.monotonic()
            outcomes = executor.wait(on_step)
            self.seconds["training"] += time.monotonic() - mark
            mark = time.monotonic()
            for outcome in outcomes:
                self._tell(jobs, outcome)
            self.tidy()
            self.seconds["driver"] += time.monotonic() - mark

    def _ask(self, workers: int) -> Job | object | None:
        """See :meth:`autolora.search.Search.ask`; within the time budget, if there is one."""
        return self.search.ask() if self.timing is None else self.timing.ask(self.search, workers)

    def note_losses(self) -> bool:
        """Record which runs of the best configurations are lost, and which are there again.

        Returns:
            Whether any are lost that were not known to be.
        """
        news = False
        for variant in self.search.plan.variants:
            runs = [trial for trial in winner(self.search.table, variant) if not trial.live]
            lost = self.weights.lost(variant, runs)
            for trial in runs:
                if trial.number in lost and not trial.weights_lost:
                    self.search.weights_lost(trial.number, lost[trial.number])
                    self.callbacks.on_weights_lost(self.search, trial.number)
                    news = True
                elif trial.number not in lost and trial.weights_lost:  # as of a disk that was not mounted
                    self.search.weights_lost(trial.number, "")
        return news

    def tidy(self) -> None:
        """Remove once what no longer serves: checkpoints of discarded trials, weights of completed ones past `keep`."""
        for trial in set(self.search.discarded()) - self.removed:
            checkpoint.discard(checkpoint.trial_folder(self.checkpoints, trial))
            self.removed.add(trial)
        for trial in set(spare(self.search.table, self.search.plan, self.keep)) - self.removed:
            checkpoint.shed(checkpoint.trial_folder(self.checkpoints, trial))
            self.removed.add(trial)

    def _tell(self, jobs: dict[int, Job], outcome: Outcome | LostWorker) -> None:
        if isinstance(outcome, LostWorker):
            for trial in outcome.trials:
                self._tell_lost(jobs.pop(trial), outcome)
            return
        self.returned += 1
        self.losses.pop(outcome.trial, None)
        job = jobs.pop(outcome.trial)
        if self.timing is not None:
            self.timing.told(self.search, job, outcome)
        if outcome.kind == "scored":
            self.search.tell(job, outcome.value, seconds=outcome.seconds, rows=outcome.rows, metrics=outcome.metrics)
        else:
            self.search.tell(
                job,
                diverged=outcome.kind == "diverged",
                infeasible=outcome.kind == "infeasible",
                at=outcome.at,
                reason=outcome.reason,
                too_large=outcome.too_large,
                seconds=outcome.seconds,
            )
        self.callbacks.on_segment_end(self.search, job, outcome)

    def _tell_lost(self, job: Job, lost: LostWorker) -> None:
        self.losses[job.trial] += 1
        if self.timing is not None:
            self.timing.paces.lost(job.trial)
        if self.losses[job.trial] < LOST_IN_A_ROW:
            self.search.tell(job, lost=True)
        elif not self.returned:
            raise WorkersError(
                f"no segment comes back: {LOST_IN_A_ROW} workers were lost with trial {job.trial} alone, the last "
                f"since {lost.reason}. Completed work is saved. Fix the cause and rerun the same command."
            )
        else:
            reason = f"{LOST_IN_A_ROW} workers were lost with it before it got further, the last since {lost.reason}"
            self.search.tell(job, infeasible=True, at=job.start, reason=reason)
        self.callbacks.on_segment_end(self.search, job, lost)


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C or SIGTERM into a request that is honored at the next optimizer step.

    A second one interrupts at once. Outside the main thread signals stay as they are.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked = threading.Event()

    def ask(signum: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    previous = {signum: signal.signal(signum, ask) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
