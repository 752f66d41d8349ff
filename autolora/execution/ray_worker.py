"""What runs on a worker of a Ray cluster: segment after segment on a base that is loaded once."""

from __future__ import annotations

import os
import queue
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import ray
from ray import cloudpickle, tune

from autolora.execution.devices import check_cards
from autolora.execution.executor import Pack
from autolora.execution.ray_nodes import further_nodes
from autolora.spec import Spec
from autolora.trainers import Interrupted, LostSegment, Outcome, Progress, SignOfLife, Trainer, checkpoint, open_trainer
from autolora.trainers.command.trainer import ProcessTrainer

PACK, AVOID, WORKER = "pack", "avoid", "worker"
"""Keys of a Tune trial's config: what is trained, the ids of nodes on which it must not be, and a Setting."""
COMMIT_SECONDS = 120.0
"""Longest wait for the optimizer step that runs when a worker is asked to stop, and the checkpoint after it."""


class Report(TypedDict, total=False):
    """What a worker reports; Tune adds keys of its own.

    Attributes:
        progress: the newest optimizer step; None before the first.
        life: the newest sign of life beside optimizer steps; None before the first.
        outcomes: at the end, those of the pack.
        lost: at the end, the reason if what trained the pack was lost; then there are no outcomes.
        worker: at the end, host and pid of the process, and how often it has loaded a base.
        done: whether the pack has ended.
        node: Ray's id of the worker's node.
        hostname, pid: Tune's, of the worker.
    """

    progress: Progress | None
    life: SignOfLife | None
    outcomes: tuple[Outcome, ...]
    lost: str
    worker: tuple[str, int, int]
    done: bool
    node: str
    hostname: str
    pid: int


class LostNodesError(Exception):
    """What trained a pack on several nodes was lost, and nobody knows which nodes are sound: this worker takes no
    other one, so that the nodes are chosen again."""


class SegmentError(Exception):
    """A segment could not be trained on this worker, which takes no other one.

    Attributes:
        error: what was raised.
        device: whether it is one of the device, such as a CUDA error, which may be another one's elsewhere.
    """

    def __init__(self, error: Exception, device: bool) -> None:
        super().__init__(error, device)
        self.error, self.device = error, device


@dataclass(frozen=True)
class Setting:
    """What every worker of a study is told. It is part of a trial's config, not an object in Ray's store: if the
    driver's node is lost, Ray would try to recover that, and end the driver.

    Attributes:
        spec: of the study.
        folder: run directory.
        mark: of the place of the checkpoints, see :func:`autolora.trainers.checkpoint.mark`.
        cwd: of the driver.
        heartbeat: seconds between reports.
    """

    spec: Spec
    folder: str
    mark: str
    cwd: str
    heartbeat: float


class SegmentWorker(tune.Trainable):
    """A Tune trial is a pack; ``reuse_actors`` gives the worker the next one without loading anything again.

    The training has a thread of its own, so that the worker can tell between optimizer steps that it lives, and be
    asked to commit a checkpoint and stop.
    """

    def setup(self, config: Mapping[str, Any]) -> None:
        told: Setting = config[WORKER]
        self._spec, self._folder, self._mark, self._heartbeat = told.spec, Path(told.folder), told.mark, told.heartbeat
        if os.path.isdir(told.cwd):
            os.chdir(told.cwd)  # for the relative paths of the specification
        self._node = ray.get_runtime_context().get_node_id()
        self._group = ray.util.get_current_placement_group()
        self._trainer: Trainer | None = None
        self._loads = 0
        self._begin(config[PACK])

    def reset_config(self, new_config: Mapping[str, Any]) -> bool:
        self._begin(new_config[PACK])
        return True

    def step(self) -> Report:
        """Report the newest step after a heartbeat, or the end at once.

        Raises:
            SegmentError: the pack ended with an error.
            LostNodesError: what trained it on several nodes was lost.
        """
        try:
            ended = self._ended.get(timeout=self._heartbeat)
        except queue.Empty:
            return {"progress": self._newest, "life": self._life, "node": self._node}
        if isinstance(ended, SegmentError):
            raise ended
        worker = (socket.gethostname(), os.getpid(), self._loads)
        report: Report = {"progress": self._newest, "worker": worker, "node": self._node, "done": True}
        if isinstance(ended, LostSegment) and self._spec.resources.nodes > 1:
            raise LostNodesError(str(ended))
        if isinstance(ended, LostSegment):
            return {**report, "lost": str(ended)}
        return {**report, "outcomes": ended}

    def interrupt(self) -> None:
        """A segment that is being trained commits a checkpoint where it is, and ends."""
        self._stopping.set()

    def cleanup(self) -> None:
        self.interrupt()
        self._thread.join(COMMIT_SECONDS)

    def _begin(self, pack: Pack) -> None:
        self._newest: Progress | None = None
        self._life: SignOfLife | None = None
        self._ended: queue.SimpleQueue[tuple[Outcome, ...] | LostSegment | SegmentError] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._train, args=(pack,), daemon=True)
        self._thread.start()

    def _train(self, pack: Pack) -> None:
        try:
            self._ended.put(self._outcomes(pack))
        except Interrupted:
            self._ended.put(())
        except LostSegment as lost:  # this worker is sound, and takes the next pack
            self._ended.put(lost)
        except Exception as error:  # goes to the driver, which tries it elsewhere or raises it
            self._ended.put(SegmentError(_portable(error), _is_of_device(error)))

    def _outcomes(self, pack: Pack) -> tuple[Outcome, ...]:
        if self._trainer is None:
            check_cards(self._spec)
            self._trainer = open_trainer(self._spec, self._folder)
            checkpoint.check_mark(checkpoint.root_of(self._spec.checkpoints, self._folder), self._mark)
            if isinstance(self._trainer, ProcessTrainer):
                self._trainer.host = ray.util.get_node_ip_address()
                self._trainer.peers = further_nodes(self._group, self._spec.resources)
            self._loads += 1
        return tuple(self._trainer.run(each, self._on_step) for each in pack)

    def _on_step(self, progress: Progress) -> None:
        if isinstance(progress, SignOfLife):
            self._life = progress
        else:
            self._newest = progress
        if self._stopping.is_set():
            raise Interrupted


def _portable(error: Exception) -> Exception:
    """The error, or its words where it cannot be sent."""
    try:
        cloudpickle.loads(cloudpickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _is_of_device(error: BaseException | None) -> bool:
    """Whether it, or what it was raised from, is an error of the accelerator or its driver."""
    import torch

    while error is not None:
        if isinstance(error, torch.AcceleratorError):
            return True
        if isinstance(error, RuntimeError) and "CUDA error" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
