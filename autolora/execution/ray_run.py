"""One Ray Tune run: a Tune trial for each pack, on workers that Tune places, starts, reuses and buries.

The run and the executor share a :class:`Desk`: packs go in, what came of them comes out. A run may be ended and another
one begun at the same desk, as after the loss of a cluster.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import ray
from ray import cloudpickle, tune
from ray.exceptions import RayError, RayTaskError
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from autolora.execution.executor import Pack
from autolora.execution.ray_cluster import ClusterError
from autolora.execution.ray_worker import (
    AVOID,
    COMMIT_SECONDS,
    PACK,
    WORKER,
    LostNodesError,
    Report,
    SegmentError,
    SegmentWorker,
    Setting,
)
from autolora.execution.scratch import Scratch
from autolora.trainers import Outcome, Progress, SignOfLife

if TYPE_CHECKING:
    from ray.tune.experiment import Trial

LOGGER = logging.getLogger(__name__)
HAND_OVER_SECONDS = 30.0
"""Longest that Tune waits for the driver to decide; past it Tune asks again."""
END_SECONDS = 10.0
"""Longest wait for a run to end whose cluster is gone."""
MOST_WORKERS = 1024
"""At once, where the specification names no number: only what Tune allows, the cluster's room is less."""

SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the study is the log
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # nothing of Tune's is restored
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_FORCE_TRIAL_CLEANUP_S": str(round(COMMIT_SECONDS)),
    "RAY_AIR_NEW_OUTPUT": "0",
}


@dataclass
class Lost:
    """A pack that came back without outcomes.

    Attributes:
        pack: what was being trained.
        host, pid: of the worker, as it reported them; empty and 0 if it did not.
        node: id or address of its node; empty if it is not known.
        reason: in words; empty if it is not known.
        error: what was raised on the worker; None if the worker died.
        device: whether the error is one of the device, such as a CUDA error.
    """

    pack: Pack
    host: str = ""
    pid: int = 0
    node: str = ""
    reason: str = ""
    error: BaseException | None = None
    device: bool = False


@dataclass
class Desk:
    """What the driver and Tune's thread share; all of it is read and changed under ``changed``.

    Attributes:
        packs: to be trained.
        ended: what has come back.
        heard: optimizer steps that were reported.
        error: why no run can go on.
        avoid: says for a pack which nodes, by id, it must not be trained on.
        driver_is_due: whether something has ended that the driver has not seen yet.
        loads: how often each worker process, by host and pid, has loaded the base.
    """

    avoid: Callable[[Pack], Collection[str]]
    changed: threading.Condition = field(default_factory=threading.Condition)
    packs: deque[Pack] = field(default_factory=deque)
    ended: deque[Outcome | Lost] = field(default_factory=deque)
    heard: deque[Progress] = field(default_factory=deque)
    error: BaseException | None = None
    driver_is_due: bool = True
    loads: dict[tuple[str, int], int] = field(default_factory=dict)


@dataclass
class Running:
    """A pack that Tune has started.

    Attributes:
        trial: Tune's, which knows the actor.
        newest: the last optimizer step heard of.
        since: when that, another sign of life, or the start was heard.
        host, pid, node: of the worker, and its node's id; empty and 0 before its first report.
        life: the last sign of life beside optimizer steps.
    """

    trial: Trial
    newest: Progress | None
    since: float
    host: str = ""
    pid: int = 0
    node: str = ""
    life: SignOfLife | None = None


class TuneRun:
    """Runs the packs of a desk until it is ended.

    Args:
        desk: shared with the driver.
        setting: what every worker is told.
        resources: of each worker.
        workers: most at once; None means as many as there is room for.
        capacity: as many as there is room for now.

    Attributes:
        running: packs that are being trained, by Tune's trial.
    """

    def __init__(
        self, desk: Desk, setting: Setting, resources: dict[str, float], workers: int | None, capacity: int
    ) -> None:
        self.running: dict[str, Running] = {}
        self._desk = desk
        self.setting = setting
        self._submitted: dict[str, tuple[Pack, Collection[str]]] = {}
        self._closing = self._over = False
        self._scratch = Scratch()
        self._tuner = tune.Tuner(
            tune.with_resources(SegmentWorker, _Placement(resources, setting.spec.resources.nodes)),
            tune_config=tune.TuneConfig(
                search_alg=_Hopper(self),
                scheduler=FIFOScheduler(),
                num_samples=-1,
                max_concurrent_trials=workers or max(MOST_WORKERS, capacity),
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="segments",
                storage_path=str(self._scratch.path),
                verbose=0,
                callbacks=[_Watch(self)],
                failure_config=tune.FailureConfig(max_failures=0),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                stop=_Closed(self),
            ),
        )
        self._thread = threading.Thread(target=self._fit, name="ray-tune", daemon=True)
        self._thread.start()

    @property
    def closing(self) -> bool:
        """Nothing more is handed out."""
        return self._closing

    @property
    def over(self) -> bool:
        """What still runs is to be stopped."""
        return self._over

    def waiting(self) -> list[Collection[str]]:
        """Of the packs for which Tune has no worker yet, the nodes that each of them avoids."""
        with self._desk.changed:
            return [avoided for trial, (_, avoided) in self._submitted.items() if trial not in self.running]

    def close(self, patience: float = COMMIT_SECONDS) -> None:
        """End; what is being trained commits a checkpoint first.

        Args:
            patience: longest wait for that in seconds. If it is shortened, what no step was heard of is killed at once:
                it may still be loading.
        """
        with self._desk.changed:
            self._closing = True
            self._interrupt()
            self._desk.changed.notify_all()
            # Tune gives an actor ten seconds to end, a checkpoint may take longer: they end by themselves first.
            if patience < COMMIT_SECONDS:
                self._kill(running for running in self.running.values() if running.newest is None)
            self._desk.changed.wait_for(lambda: not self.running, patience)
            self._kill(self.running.values())
        self._end(None)

    def abandon(self, reason: str, disconnect: Callable[[], object] | None = None) -> None:
        """End early: what is being trained is lost, what waited for a worker goes back to the desk.

        Args:
            reason: why, in words.
            disconnect: leaves the cluster if that is gone; None means that it is there, and Tune ends its workers.

        Raises:
            ClusterError: Tune does not end.
        """
        with self._desk.changed:
            self._closing = True
            if disconnect is None:
                self._interrupt()
            for trial, (pack, _) in reversed(self._submitted.items()):
                if trial in self.running:
                    self._desk.ended.append(self._lost(trial, pack, reason))
                else:
                    self._desk.packs.appendleft(pack)
            self._submitted.clear()
            self.running.clear()
            self._desk.driver_is_due = True
        self._end(disconnect)

    @staticmethod
    def _kill(found: Iterable[Running]) -> None:
        for actor in [running.trial.temporary_state.ray_actor for running in found]:
            if actor is not None:
                ray.kill(actor)

    def _interrupt(self) -> None:
        for running in self.running.values():
            if running.trial.temporary_state.ray_actor is not None:
                running.trial.temporary_state.ray_actor.interrupt.remote()

    def _end(self, disconnect: Callable[[], object] | None) -> None:
        with self._desk.changed:
            self._over = True
            self._desk.changed.notify_all()
        if disconnect is None:
            self._thread.join()
        else:
            self._thread.join(END_SECONDS)
            disconnect()
            self._thread.join(END_SECONDS)
            if self._thread.is_alive():  # it waits for the head process, for ever
                raise ClusterError(
                    "the head process of the Ray cluster ended. Completed work is saved. Start the cluster if it is "
                    "not one that autolora starts, and rerun the same command"
                )
        self._scratch.remove()

    def kill_stalled(self, seconds: float) -> None:
        """Kill workers that took no step for so long. Tune then hears that their actors died."""
        now = time.monotonic()
        for running in self.running.values():
            actor = running.trial.temporary_state.ray_actor
            if now - running.since > seconds and actor is not None:
                ray.kill(actor)
                running.since = now

    def _fit(self) -> None:
        """The Tune run, from its first pack to its end."""
        try:
            with _environment(SETTINGS):
                self._tuner.fit()
        except BaseException as error:
            self._fail(ClusterError(f"Ray Tune ended with {type(error).__name__}: {error}"))
        else:
            self._fail(ClusterError("Ray Tune ended before the search did"))
        finally:
            with self._desk.changed:
                self.running.clear()
                self._desk.changed.notify_all()

    def _fail(self, error: BaseException) -> None:
        with self._desk.changed:
            if not self._closing:
                self._desk.error = self._desk.error or error
            self._desk.changed.notify_all()

    # What Tune's thread calls.

    def next_pack(self, trial_id: str) -> tuple[Pack, Collection[str]] | None:
        """The next pack, and the nodes that it avoids. Where something has just ended, the driver first gets time to
        say what is next: a worker whose successor is known at once keeps its base.
        """
        desk = self._desk
        with desk.changed:
            before = time.monotonic()
            desk.changed.wait_for(lambda: desk.packs or not desk.driver_is_due or self._closing, HAND_OVER_SECONDS)
            for running in self.running.values():  # nobody was listened to meanwhile
                running.since += time.monotonic() - before
            if not desk.packs or self._closing:
                return None
            pack = desk.packs.popleft()
            self._submitted[trial_id] = pack, desk.avoid(pack)
            return self._submitted[trial_id]

    def started(self, trial: Trial) -> None:
        with self._desk.changed:
            if trial.trial_id in self._submitted:
                self.running[trial.trial_id] = Running(trial, None, time.monotonic())

    def heard(self, trial_id: str, result: Report) -> None:
        with self._desk.changed:
            running = self.running.get(trial_id)
            progress = result.get("progress")
            if running is not None:
                running.host, running.pid, running.node = result["hostname"], result["pid"], result["node"]
            if running is not None and result.get("life") != running.life:
                running.life, running.since = result.get("life"), time.monotonic()
            if running is not None and progress is not None and progress != running.newest:
                running.newest, running.since = progress, time.monotonic()
                self._desk.heard.append(progress)
                self._desk.changed.notify_all()

    def ended(self, trial_id: str, report: Report) -> None:
        """A pack ended with this last report; one that was stopped is not done."""
        if not report.get("done"):
            return
        self.heard(trial_id, report)
        with self._desk.changed:
            host, pid, loads = report["worker"]
            self._desk.loads[host, pid] = loads
            if "lost" in report and trial_id in self._submitted:
                self._leave(trial_id, self._lost(trial_id, self._submitted[trial_id][0], report["lost"]))
            else:
                self._leave(trial_id, *report.get("outcomes", ()))

    def failed(self, trial_id: str, error: BaseException | None) -> None:
        """A pack ended since its actor died, or by an error on it."""
        with self._desk.changed:
            if trial_id not in self._submitted:
                return
            pack, _ = self._submitted[trial_id]
            lost = self._lost(trial_id, pack, _said(error))
            lost.node = lost.node or _address_in(error)
            cause = error.cause if isinstance(error, RayTaskError) else None
            if isinstance(cause, SegmentError):
                lost.error, lost.device, lost.reason = cause.error, cause.device, _said(cause.error)
            elif isinstance(cause, LostNodesError):
                lost.reason = str(cause)
            elif getattr(error, "actor_init_failed", False):
                lost.reason = f"it could not start: {_last_line(error)}"
                lost.error = ClusterError(
                    f"a worker could not start: {_last_line(error)}. Install autolora and what the study uses, in the "
                    "same versions, on every node"
                )
            elif isinstance(error, RayTaskError) and not isinstance(cause, RayError):
                lost.error = error  # in our own code
            self._leave(trial_id, lost)

    def _lost(self, trial_id: str, pack: Pack, reason: str) -> Lost:
        running = self.running.get(trial_id)
        if running is None:
            return Lost(pack, reason=reason)
        return Lost(pack, running.host, running.pid, running.node, reason)

    def _leave(self, trial_id: str, *outcomes: Outcome | Lost) -> None:
        with self._desk.changed:
            if self._submitted.pop(trial_id, None) is not None:
                self._desk.ended.extend(outcomes)
            self.running.pop(trial_id, None)
            self._desk.driver_is_due = True
            self._desk.changed.notify_all()


class _Part:
    """What Tune is given of a run. Tune pickles its parts, for a restore that is never done: empty ones."""

    def __init__(self, run: TuneRun) -> None:
        super().__init__()
        self._run = run

    def __reduce__(self) -> tuple[type[_Part], tuple[None]]:
        return type(self), (None,)


class _Hopper(_Part, Searcher):
    """Hands Tune what the policy has decided: None where it is to wait, FINISHED where the search is over."""

    def suggest(self, trial_id: str) -> dict[str, object] | str | None:
        found = self._run.next_pack(trial_id)
        if found is not None:
            pack, avoided = found
            return {PACK: pack, AVOID: tuple(sorted(avoided)), WORKER: self._run.setting}
        return Searcher.FINISHED if self._run.closing else None

    def on_trial_result(self, trial_id: str, result: Report) -> None:
        self._run.heard(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: Report | None = None, error: bool = False) -> None:
        if not error:
            self._run.ended(trial_id, result or {})

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what there is to know is in the study."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""


class _Watch(_Part, tune.Callback):
    """Tells when a pack begins, on which actor, and when that fails."""

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        self._run.started(trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        file = trial.pickled_error_file  # that Tune has just written on this machine
        error = cloudpickle.loads(Path(file).read_bytes()) if file else trial.get_error()
        self._run.failed(trial.trial_id, error)


class _Closed(_Part, tune.Stopper):
    """Stops what still runs once the run is over."""

    def __call__(self, trial_id: str, result: Report) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._run.over


@dataclass(frozen=True)
class _Placement:
    """What a worker for a pack gets, and where it may be: all of it on one node, or the same on each of several.

    Attributes:
        resources: on a node.
        nodes: of a worker.
    """

    resources: Mapping[str, float]
    nodes: int = 1

    def __call__(self, config: Mapping[str, object]) -> tune.PlacementGroupFactory:
        avoided = config.get(AVOID)
        bundles = [dict(self.resources) for _ in range(self.nodes)]
        strategy = "PACK" if self.nodes == 1 else "STRICT_SPREAD"
        if not avoided:
            return tune.PlacementGroupFactory(bundles, strategy)
        elsewhere = {"ray.io/node-id": f"!in({','.join(avoided)})"}  # type: ignore[arg-type]
        return tune.PlacementGroupFactory(bundles, strategy, bundle_label_selector=[elsewhere] * self.nodes)


def _said(error: BaseException | None) -> str:
    """First line of what it says."""
    if error is None:
        return ""
    said = str(error).strip().partition("\n")[0].rstrip(". ")
    return said if isinstance(error, RayError) else f"{type(error).__name__}: {said}"


def _last_line(error: BaseException | None) -> str:
    """What a traceback within an error's words ends with."""
    return str(error).strip().rpartition("\n")[2].strip().rstrip(".")


def _address_in(error: BaseException | None) -> str:
    """Address of the node that an error names, for a worker that never reported; empty if it names none."""
    named = re.search(r"\bip[=:]\s*([0-9a-fA-F.:]+)", str(error))
    return named[1] if named else ""


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
