"""Segments run in this process, one after the other, on the resident base."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from autolora.execution.executor import LostWorker, Pack
from autolora.training import segment
from autolora.training.segment import Outcome, Progress
from autolora.training.workbench import Workbench


class InlineExecutor:
    """The executor of one machine without workers.

    Args:
        bench: model, data and settings.
    """

    capacity = 1

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._packs: deque[Pack] = deque()

    def submit(self, pack: Pack) -> None:
        self._packs.append(pack)

    def wait(self, on_step: Callable[[Progress], None]) -> Iterable[Outcome | LostWorker]:
        return [segment.run(self._bench, each, on_step) for each in self._packs.popleft()]

    def close(self) -> None:
        self._packs.clear()
