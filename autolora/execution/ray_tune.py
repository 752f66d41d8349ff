"""Segments run by Ray Tune: one Tune trial a pack, on as many workers as the cluster has room for.

Tune does what it is good at: placing, starting, reusing and burying actors. What is tuned next is the policy's, and
what has happened is the study's, so Tune keeps no state worth restoring: a new driver starts a new Tune run and
rebuilds all from the study (no ``Tuner.restore``). So does an executor whose cluster was lost.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

from autolora import urls
from autolora.execution.executor import Executor, LostWorker, Pack
from autolora.execution.ray_cluster import (
    AWAY_MINUTES,
    LOOK_SECONDS,
    STARTS_IN_A_ROW,
    Cluster,
    ClusterError,
    shown,
)
from autolora.execution.ray_run import Desk, Lost, TuneRun
from autolora.execution.ray_worker import COMMIT_SECONDS, Setting
from autolora.spec import Spec
from autolora.trainers import Outcome, Progress, Trainer, checkpoint
from autolora.trainers.places import is_url

__all__ = ["ClusterError", "RayTuneExecutor"]

LOGGER = logging.getLogger(__name__)
LOOK_UP_SECONDS = 0.5
"""How often the driver looks up while nothing ends."""
HEARTBEAT_SECONDS, LONGEST_HEARTBEAT_SECONDS, HEARTBEATS_A_SECOND = 1.0, 10.0, 20.0
"""How often a worker reports that it lives, less often where there are many; and reports of all together, about."""
NOBODY_SECONDS = 60.0
"""After which the user hears that packs wait and no worker has started."""
PLACES = 3
"""Nodes on which a trial may fail with an error before the error ends the study, where there are so many."""
DEVICE_ERRORS = 3
"""As many errors of a device as this, before the segment comes back, end the study where a trial has no other node."""
LEFT_OUT_MINUTES = 10.0
"""How long a node gets no trials on which one failed that then went well elsewhere."""


class RayTuneExecutor(Executor):
    """Runs packs on a Ray cluster, see :class:`autolora.execution.ray_cluster.Cluster`.

    A worker that dies is lost, and so is one that raises an error while another node has room: the trial is handed out
    again, there in the second case. An error ends the study if it repeats on every node, or on PLACES of them.

    Args:
        spec: what workers load; its ``resources`` are of each.
        folder: run directory, seen by all nodes unless the specification's ``checkpoints`` are elsewhere.

    Raises:
        ClusterError: the cluster cannot be joined or started, or no node has what one worker is to get.
    """

    def __init__(self, spec: Spec, folder: Path) -> None:
        self._spec, self._folder = spec, folder
        self._workers = spec.resources.workers
        self._fitting = 0
        self._patience = COMMIT_SECONDS
        self._desk = Desk(self._avoided)
        self._run: TuneRun | None = None
        self._failed_on: defaultdict[int, set[str]] = defaultdict(set)
        self._device_errors: Counter[int] = Counter()
        self._left_out: dict[str, float] = {}
        self._starts = 0
        self._away_since: float | None = None
        self._somebody = time.monotonic()
        self._stack = ExitStack()
        self._cluster = Cluster(spec.resources, folder)
        self._stack.callback(self._cluster.close)
        try:
            self._check_room()
        except BaseException:
            self.close()
            raise

    @property
    def loads(self) -> dict[tuple[str, int], int]:
        """How often each worker process, by host and pid, has loaded the base."""
        return self._desk.loads

    def about(self) -> Sequence[str]:
        fitting = self._cluster.fitting()
        asked = f"{fitting} worker{'s' if fitting != 1 else ''}"
        if self._workers:
            asked = f"at most {self._workers} workers, {fitting} fit now"
        return self._cluster.about(asked)

    def start(self, trainer: Trainer) -> None:
        self._mark = checkpoint.mark(checkpoint.root_of(self._spec.checkpoints, self._folder))
        trainer.set_aside()
        self._run = self._new_run()

    def _new_run(self) -> TuneRun:
        capacity = self.capacity
        setting = Setting(
            spec=_for_workers(self._spec),
            folder=str(self._folder.absolute()),
            mark=self._mark,
            cwd=os.getcwd(),
            heartbeat=min(max(HEARTBEAT_SECONDS, capacity / HEARTBEATS_A_SECOND), LONGEST_HEARTBEAT_SECONDS),
        )
        return TuneRun(self._desk, setting, self._cluster.resources, self._workers, capacity)

    def _check_room(self) -> None:
        grows = self._workers is not None and not self._cluster.started
        if not grows and not self._cluster.fitting():
            there = "; ".join(f"{node} has {shown(node.resources)}" for node in self._cluster.nodes())
            spanned = self._cluster.spanned
            lacking = (
                "no node of the cluster has" if spanned == 1 else f"fewer than {spanned} nodes of the cluster have"
            )
            raise ClusterError(
                f"{lacking} {shown(self._cluster.resources)} for a worker: {there}. Ask for less in "
                "resources:, or, if the cluster grows on demand, say how far with resources.workers"
            )

    @property
    def capacity(self) -> int:
        """The workers asked for, or as many as fit into the nodes that are used now; those of before if none is."""
        if self._workers is not None:
            return self._workers
        self._fitting = self._cluster.fitting(self._now_left_out()) or self._fitting or 1
        return self._fitting

    def submit(self, pack: Pack) -> None:
        with self._desk.changed:
            self._desk.packs.append(pack)
            self._desk.changed.notify_all()

    def wait(self, on_step: Callable[[Progress], None]) -> Iterable[Outcome | LostWorker]:
        desk = self._desk
        with desk.changed:
            if not desk.ended:
                desk.driver_is_due = False
                desk.changed.notify_all()
                desk.changed.wait_for(lambda: desk.ended or desk.heard or desk.error, LOOK_UP_SECONDS)
        if desk.error is not None:
            self._cluster.nodes(now=True)  # Tune may have ended since its cluster did
        self._watch_cluster()
        if self._run is not None:
            with desk.changed:
                self._run.kill_stalled(60 * self._spec.resources.stall_minutes)
            self.warn_if_no_worker_started()
        with desk.changed:
            # At one moment, so that nobody hears of steps of a trial that has been returned.
            heard, ended = list(desk.heard), list(desk.ended)
            desk.heard.clear()
            desk.ended.clear()
        for progress in heard:
            on_step(progress)
        if desk.error is not None:
            raise desk.error
        return [self._judged(each) if isinstance(each, Lost) else self._went_well(each) for each in ended]

    def hurry(self, seconds: float) -> None:
        self._patience = seconds

    def close(self) -> None:
        self._desk.packs.clear()
        run, self._run = self._run, None
        try:
            if run is not None:
                run.close(self._patience)
        finally:
            self._stack.close()

    # What a lost pack is: a worker that died, an error to be tried elsewhere, or the end.

    def _judged(self, lost: Lost) -> LostWorker:
        node = self._cluster.node(lost.node)
        worker = f"host {lost.host}, pid {lost.pid}" if lost.host else ""
        trials = tuple(job.trial for job in lost.pack)
        if lost.error is not None:
            for trial in trials:
                self._failed_on[trial].add(node.id if node is not None else "")
                self._device_errors[trial] += lost.device
            if not self._may_retry(lost, trials):
                raise lost.error
        return LostWorker(trials, lost.reason or LostWorker.reason, worker, str(node or ""))

    def _may_retry(self, lost: Lost, trials: Sequence[int]) -> bool:
        failed = set.union(*(self._failed_on[trial] for trial in trials))
        if "" not in failed and len(failed) < PLACES and self._cluster.fitting(failed | self._now_left_out()):
            return True
        if lost.device and all(self._device_errors[trial] < DEVICE_ERRORS for trial in trials):
            for trial in trials:
                self._failed_on.pop(trial)  # another process, and device, of the same nodes
            return True
        return False

    def _went_well(self, outcome: Outcome) -> Outcome:
        self._starts = self._cluster.starts
        self._device_errors.pop(outcome.trial, None)
        for place in self._failed_on.pop(outcome.trial, ()):
            self._left_out[place] = time.monotonic() + 60 * LEFT_OUT_MINUTES
            LOGGER.warning(
                "node %s gets no trials for %g minutes: trial %d failed there, and went well on another node",
                place[:8],
                LEFT_OUT_MINUTES,
                outcome.trial,
            )
        return outcome

    def _now_left_out(self) -> set[str]:
        now = time.monotonic()
        self._left_out = {place: until for place, until in self._left_out.items() if until > now}
        left_out = set(self._left_out)
        return left_out if self._cluster.fitting(left_out) else set()

    def _avoided(self, pack: Pack) -> Collection[str]:
        failed = {place for job in pack for place in self._failed_on.get(job.trial, ())}
        return failed | self._now_left_out()

    # What is done about a cluster that is gone.

    def _watch_cluster(self) -> None:
        """Start or join the cluster again if it is gone.

        Raises:
            ClusterError: it stays away.
        """
        if self._away_since is None and self._cluster.nodes() and self._cluster.connected():
            self._free_the_stuck()
            return
        if self._away_since is None:
            self._begin_away()
        if self._cluster.may_reconnect():
            if not self._cluster.reconnect():
                return self._still_away()
            self._run = self._new_run()
        elif not (self._cluster.nodes() and self._cluster.connected()):
            return self._still_away()
        LOGGER.warning("the Ray cluster is there again, at %s; trials go on from checkpoints", self._cluster.address)
        self._away_since = None
        self._somebody = time.monotonic()  # no worker could start meanwhile

    def _begin_away(self) -> None:
        cluster = self._cluster
        self._away_since = time.monotonic()
        if cluster.started and cluster.starts - self._starts >= STARTS_IN_A_ROW:
            raise ClusterError(
                f"the Ray instance on this machine ended {STARTS_IN_A_ROW} times in a row before a segment came back. "
                f"Completed work is saved. Fix the cause, see {cluster.log}, and rerun the same command"
            )
        then = "it is started again" if cluster.started else f"waiting for it, up to {AWAY_MINUTES:g} minutes"
        what = "this machine's node of" if cluster.nodes() else "every node of"
        LOGGER.warning("%s the Ray cluster at %s is gone; %s", what, cluster.address, then)
        if cluster.may_reconnect() and self._run is not None:
            run, self._run = self._run, None
            run.abandon("its node is gone", cluster.disconnect)
            self._desk.error = None

    def _still_away(self) -> None:
        assert self._away_since is not None
        if time.monotonic() - self._away_since > 60 * AWAY_MINUTES:
            raise ClusterError(
                f"the Ray cluster at {self._cluster.address} has had no node for {AWAY_MINUTES:g} minutes. Completed "
                "work is saved. Start its nodes and rerun the same command"
            )
        time.sleep(min(LOOK_UP_SECONDS, LOOK_SECONDS))

    def _free_the_stuck(self) -> None:
        """Begin a new run if a pack waits for nodes other than all that are left."""
        run = self._run
        if run is None or all(not avoided or self._cluster.fitting(avoided) for avoided in run.waiting()):
            return
        self._failed_on.clear()
        self._left_out.clear()
        run.abandon("the nodes that are left were avoided by another trial")
        self._run = self._new_run()

    def warn_if_no_worker_started(self) -> None:
        """Say once in a while that packs wait and no worker has started."""
        now = time.monotonic()
        if self._run is None or self._run.running or not (self._desk.packs or self._run.waiting()):
            self._somebody = now
        elif now - self._somebody > NOBODY_SECONDS:
            nodes = [f"{node} has {shown(node.resources)}" for node in self._cluster.nodes()]
            asked = shown(self._cluster.resources)
            LOGGER.warning("no worker has started yet: each is to have %s; %s", asked, "; ".join(nodes) or "no nodes")
            self._somebody = now + 9 * NOBODY_SECONDS  # seldom


def _for_workers(spec: Spec) -> Spec:
    """The specification with what workers need of this process's environment, and without what they need not know."""
    checkpoints = spec.checkpoints
    if checkpoints is not None and is_url(checkpoints):
        checkpoints = urls.resolved(checkpoints)
    return spec.model_copy(update={"checkpoints": checkpoints, "storage": None})
