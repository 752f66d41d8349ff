"""Segments run in this process, one after the other, on the resident base."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from autolora.execution.executor import Executor, LostWorker, Pack
from autolora.trainers import Outcome, Progress, Trainer


class InlineExecutor(Executor):
    """The executor of one machine without workers: the trainer that it is started with runs the jobs."""

    def __init__(self) -> None:
        self._packs: deque[Pack] = deque()

    @property
    def in_process(self) -> bool:
        return True

    @property
    def capacity(self) -> int:
        return 1

    def start(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def submit(self, pack: Pack) -> None:
        self._packs.append(pack)

    def wait(self, on_step: Callable[[Progress], None]) -> Iterable[Outcome | LostWorker]:
        return [self._trainer.run(each, on_step) for each in self._packs.popleft()]

    def close(self) -> None:
        self._packs.clear()
