"""Studies on a cluster that are disturbed while they run, and what is compared of them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil

import autolora
from autolora import spec as specs
from autolora.driver.result import TuneResult
from tests.support.specs import SMALL_SPEC

TRAINS = ("ray::ResourceTrainable", "ray::SegmentWorker")
TERMS = {
    **SMALL_SPEC,
    "variants": ["lora", "pissa"],
    "budget": 2.5,
    "confirm": 0,
    "prior": "laws",
    "training": {**SMALL_SPEC["training"], "examples": 128, "checkpoint_seconds": 0},
}
"""Long enough to be disturbed in the middle of a segment, which has a checkpoint after every optimizer step."""


def tune(folder: Path, executor="ray", callbacks=(), **overrides) -> TuneResult:
    return autolora.tune(spec=specs.load({**TERMS, **overrides}), dir=folder, executor=executor, callbacks=callbacks)


def workers() -> list[psutil.Process]:
    """Processes that train, of the cluster that this process has started: other tests may have one beside it."""
    return [process for process in psutil.Process().children(recursive=True) if _title(process).startswith(TRAINS)]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def nobody_trains_within(seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while workers() and time.monotonic() < deadline:
        time.sleep(0.2)
    return not workers()


class Disturber(autolora.Callback):
    """Does something to the cluster in the middle of a segment, and keeps what was heard of every trial's steps.

    Args:
        disturb: called once for each of these moments; again at the next where it says False.
        at: optimizer steps heard of in all, at which it is called.
    """

    def __init__(self, disturb: Callable[[], bool | None], at: tuple[int, ...] = (5,)) -> None:
        self._disturb, self._moments = disturb, list(at)
        self.steps: list[tuple[int, int]] = []

    def on_step(self, progress) -> None:
        self.steps.append((progress.trial, progress.step))
        if self._moments and len(self.steps) >= self._moments[0] and self._disturb() is not False:
            self._moments.pop(0)

    @property
    def done(self) -> bool:
        return not self._moments

    def repeated(self) -> int:
        """Most optimizer steps that a trial was heard to take again."""
        newest: dict[int, int] = {}
        most = 0
        for trial, step in self.steps:
            most = max(most, newest.get(trial, 0) - step)
            newest[trial] = max(step, newest.get(trial, 0))
        return most


def kill_a_worker(how: signal.Signals = signal.SIGKILL) -> bool:
    """Whatever it does; False where there is none just now."""
    victims = workers()
    if victims:
        os.kill(victims[0].pid, how)
    return bool(victims)
