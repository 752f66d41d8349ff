"""Segments run by Ray Tune: one Tune trial a pack, on as many workers as the cluster has room for.

Tune does what it is good at: placing, starting, reusing and burying actors. What is tuned next is the policy's, and
what has happened is the study's, so Tune keeps no state worth restoring: a new driver starts a new Tune run and
rebuilds all from the study (no ``Tuner.restore``).
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import ray
from ray import cloudpickle, tune
from ray.exceptions import RayError, RayTaskError
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from autolora.errors import AutoloraError
from autolora.execution.executor import LostWorker, Pack
from autolora.execution.ray_worker import COMMIT_SECONDS, PACK, Report, SegmentWorker
from autolora.execution.scratch import Scratch
from autolora.spec import ResourcesSpec, Spec
from autolora.trainers import Outcome, Progress

if TYPE_CHECKING:
    from ray.tune.experiment import Trial

LOGGER = logging.getLogger(__name__)
LOOK_UP_SECONDS = 0.5
"""How often the driver looks up while nothing ends."""
HAND_OVER_SECONDS = 30.0
"""Longest that Tune waits for the driver to decide; past it Tune asks again."""
CAPACITY_SECONDS = 5.0
"""How long a count of what fits into the cluster is good."""
HEARTBEAT_SECONDS, LONGEST_HEARTBEAT_SECONDS, HEARTBEATS_A_SECOND = 1.0, 10.0, 20.0
"""How often a worker reports that it lives, less often where there are many; and reports of all together, about."""
NOBODY_SECONDS = 60.0
"""After which the user hears that packs wait and no worker has started."""
MOST_WORKERS = 1024
"""At once, where the specification names no number: only what Tune allows, the cluster's room is less."""

SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the study is the log
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # nothing of Tune's is restored
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_FORCE_TRIAL_CLEANUP_S": str(round(COMMIT_SECONDS)),
    "RAY_AIR_NEW_OUTPUT": "0",
}


class ClusterError(AutoloraError, RuntimeError):
    """The cluster cannot run what was asked for, or is gone."""


@dataclass
class _Running:
    """A pack that Tune has started.

    Attributes:
        trial: Tune's, which knows the actor.
        newest: the last optimizer step heard of.
        since: when that, or the start, was heard.
    """

    trial: Trial
    newest: Progress | None
    since: float


class RayTuneExecutor:
    """Runs packs on a Ray cluster: the one this process is connected to, the one at ``RAY_ADDRESS`` or that runs on
    this machine, or a new one on it that ends with the executor.

    Args:
        spec: what workers load; its ``resources`` are of each.
        folder: run directory, seen by all nodes unless the specification's ``checkpoints`` are elsewhere.
        mark: of the place of the checkpoints, see :func:`autolora.trainers.checkpoint.mark`.

    Attributes:
        loads: how often each worker process, by host and pid, has loaded the base.

    Raises:
        ClusterError: no node has what one worker is to get.
    """

    def __init__(self, spec: Spec, folder: Path, mark: str) -> None:
        self.loads: dict[tuple[str, int], int] = {}
        self._workers = spec.resources.workers
        self._stall_seconds = 60 * spec.resources.stall_minutes
        self._fitting, self._counted = 0, -math.inf
        self._packs: deque[Pack] = deque()
        self._submitted: dict[str, Pack] = {}
        self._running: dict[str, _Running] = {}
        self._ended: deque[Outcome | LostWorker] = deque()
        self._heard: deque[Progress] = deque()
        self._error: BaseException | None = None
        self._driver_is_due = True
        self._somebody = time.monotonic()
        self._closing = self._over = False
        self._changed = threading.Condition()
        self._scratch = Scratch()
        self._thread: threading.Thread | None = None
        self._started_ray = not ray.is_initialized()
        if self._started_ray:
            _connect()
        try:
            self._resources = _resources(spec.resources)
            self._tuner = self._made(spec, folder, mark)
        except BaseException:
            self.close()
            raise
        self._thread = threading.Thread(target=self._fit, name="ray-tune", daemon=True)
        self._thread.start()

    def _made(self, spec: Spec, folder: Path, mark: str) -> tune.Tuner:
        workers = self.capacity
        trainable = tune.with_parameters(
            SegmentWorker,
            spec=spec.model_copy(update={"storage": None}),  # workers do not write the study, nor see its password
            folder=str(folder.absolute()),
            mark=mark,
            cwd=os.getcwd(),
            heartbeat=min(max(HEARTBEAT_SECONDS, workers / HEARTBEATS_A_SECOND), LONGEST_HEARTBEAT_SECONDS),
        )
        return tune.Tuner(
            tune.with_resources(trainable, self._resources),
            tune_config=tune.TuneConfig(
                search_alg=_Hopper(self),
                scheduler=FIFOScheduler(),
                num_samples=-1,
                max_concurrent_trials=self._workers or max(MOST_WORKERS, workers),
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

    @property
    def capacity(self) -> int:
        """The workers asked for, or as many as fit into the cluster as it is now.

        Raises:
            ClusterError: no number was asked for, and not one fits.
        """
        if self._workers is not None:
            return self._workers
        if time.monotonic() - self._counted > CAPACITY_SECONDS:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            fitting = sum(_fit_into(node, self._resources) for node in nodes)
            if not fitting and not self._fitting:
                raise ClusterError(
                    f"no node of the cluster has {self._resources} for a worker: ask for less in resources:, or, if "
                    "the cluster grows on demand, say how far with resources.workers"
                )
            self._fitting, self._counted = max(1, fitting), time.monotonic()
        return self._fitting

    def submit(self, pack: Pack) -> None:
        with self._changed:
            self._packs.append(pack)
            self._changed.notify_all()

    def wait(self, on_step: Callable[[Progress], None]) -> Iterable[Outcome | LostWorker]:
        with self._changed:
            if not self._ended:
                self._driver_is_due = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._ended or self._heard or self._error, LOOK_UP_SECONDS)
            self._kill_stalled()
            self.warn_if_no_worker_started()
            # At one moment, so that nobody hears of steps of a trial that has been returned.
            heard, ended = list(self._heard), list(self._ended)
            self._heard.clear()
            self._ended.clear()
        for progress in heard:
            on_step(progress)
        if self._error is not None:
            raise self._error
        return ended

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._packs.clear()
            for running in self._running.values():
                if running.trial.temporary_state.ray_actor is not None:
                    running.trial.temporary_state.ray_actor.interrupt.remote()
            self._changed.notify_all()
            # Tune gives an actor ten seconds to end, a checkpoint may take longer: they end by themselves first.
            self._changed.wait_for(lambda: not self._running, COMMIT_SECONDS)
            self._over = True
        try:
            if self._thread is not None:
                self._thread.join()
        finally:
            if self._started_ray:
                ray.shutdown()
            self._scratch.remove()

    def _kill_stalled(self) -> None:
        """Tune then hears that their actors died."""
        now = time.monotonic()
        for running in self._running.values():
            actor = running.trial.temporary_state.ray_actor
            if now - running.since > self._stall_seconds and actor is not None:
                ray.kill(actor)
                running.since = now

    def warn_if_no_worker_started(self) -> None:
        now = time.monotonic()
        if self._running or not (self._packs or self._submitted):
            self._somebody = now
        elif now - self._somebody > NOBODY_SECONDS:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            LOGGER.warning("no worker has started yet: each is to have %s, the nodes have %s", self._resources, nodes)
            self._somebody = now + 9 * NOBODY_SECONDS  # seldom

    def _fit(self) -> None:
        """The Tune run, from its first pack to :meth:`close`."""
        try:
            with _environment(SETTINGS), _quiet(logging.getLogger("ray.tune")):
                self._tuner.fit()
        except BaseException as error:
            self._fail(ClusterError(f"Ray Tune ended with {type(error).__name__}: {error}"))
        else:
            if not self._closing:
                self._fail(ClusterError("Ray Tune ended before the search did"))
        finally:
            with self._changed:
                self._running.clear()
                self._changed.notify_all()

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    # What Tune's thread calls.

    def next_pack(self, trial_id: str) -> Pack | None:
        """The next pack. Where something has just ended, the driver first gets time to say what is next: a worker whose
        successor is known at once keeps its base.
        """
        with self._changed:
            before = time.monotonic()
            self._changed.wait_for(lambda: self._packs or not self._driver_is_due or self._closing, HAND_OVER_SECONDS)
            for running in self._running.values():  # nobody was listened to meanwhile
                running.since += time.monotonic() - before
            if not self._packs:
                return None
            pack = self._submitted[trial_id] = self._packs.popleft()
            return pack

    @property
    def closing(self) -> bool:
        """Nothing more is handed out."""
        return self._closing

    @property
    def over(self) -> bool:
        """What still runs is to be stopped."""
        return self._over

    def started(self, trial: Trial) -> None:
        with self._changed:
            self._running[trial.trial_id] = _Running(trial, None, time.monotonic())

    def heard(self, trial_id: str, result: Report) -> None:
        with self._changed:
            running = self._running.get(trial_id)
            progress = result.get("progress")
            if running is not None and progress is not None and progress != running.newest:
                running.newest, running.since = progress, time.monotonic()
                self._heard.append(progress)
                self._changed.notify_all()

    def ended(self, trial_id: str, report: Report) -> None:
        """A pack ended with this last report; one that was stopped is not done."""
        if not report.get("done"):
            return
        if "error" in report:
            self._leave(trial_id)
            return self._fail(report["error"])
        self.heard(trial_id, report)
        with self._changed:
            host, pid, loads = report["worker"]
            self.loads[host, pid] = loads
            self._leave(trial_id, *report["outcomes"])

    def failed(self, trial_id: str, error: BaseException | None) -> None:
        """A pack ended since its actor died, or by an error in our own code on it."""
        broken = isinstance(error, RayTaskError) and not isinstance(error.cause, RayError)
        if error is not None and (broken or getattr(error, "actor_init_failed", False)):
            self._leave(trial_id)
            return self._fail(error)
        with self._changed:
            trials = tuple(job.trial for job in self._submitted[trial_id])
            said = str(error).strip().partition("\n")[0].rstrip(". ") if error is not None else ""
            self._leave(trial_id, LostWorker(trials, said) if said else LostWorker(trials))

    def _leave(self, trial_id: str, *outcomes: Outcome | LostWorker) -> None:
        with self._changed:
            self._submitted.pop(trial_id)
            self._running.pop(trial_id, None)
            self._ended.extend(outcomes)
            self._driver_is_due = True
            self._changed.notify_all()


class _Part:
    """What Tune is given of an executor. Tune pickles its parts, for a restore that is never done: empty ones."""

    def __init__(self, executor: RayTuneExecutor) -> None:
        super().__init__()
        self._executor = executor

    def __reduce__(self) -> tuple[type[_Part], tuple[None]]:
        return type(self), (None,)


class _Hopper(_Part, Searcher):
    """Hands Tune what the policy has decided: None where it is to wait, FINISHED where the search is over."""

    def suggest(self, trial_id: str) -> dict[str, Pack] | str | None:
        pack = self._executor.next_pack(trial_id)
        if pack is not None:
            return {PACK: pack}
        return Searcher.FINISHED if self._executor.closing else None

    def on_trial_result(self, trial_id: str, result: Report) -> None:
        self._executor.heard(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: Report | None = None, error: bool = False) -> None:
        if not error:
            self._executor.ended(trial_id, result or {})

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what there is to know is in the study."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""


class _Watch(_Part, tune.Callback):
    """Tells when a pack begins, on which actor, and when that fails."""

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        self._executor.started(trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        file = trial.pickled_error_file  # that Tune has just written on this machine
        error = cloudpickle.loads(Path(file).read_bytes()) if file else trial.get_error()
        self._executor.failed(trial.trial_id, error)


class _Closed(_Part, tune.Stopper):
    """Stops what still runs once the executor has been closed."""

    def __call__(self, trial_id: str, result: Report) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._executor.over


def _connect() -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(log_to_driver=False, logging_level="warning", configure_logging=False)


def _resources(asked: ResourcesSpec) -> dict[str, float]:
    gpu = asked.gpu
    if gpu is None:
        gpu = 1.0 if ray.cluster_resources().get("GPU") else 0.0
    return {"CPU": asked.cpu} | ({"GPU": gpu} if gpu else {})


def _fit_into(node: Mapping[str, float], resources: Mapping[str, float]) -> int:
    """Workers that fit into a node."""
    fitting = math.inf
    for name, amount in resources.items():
        there = node.get(name, 0.0)
        if name == "GPU" and amount < 1:  # a share is of one card
            fitting = min(fitting, there * math.floor(1 / amount + 1e-9))
        else:
            fitting = min(fitting, there / amount)
    return math.floor(fitting + 1e-9)


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Tune's, which tells of each pack that was lost or has no metrics."""
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


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
