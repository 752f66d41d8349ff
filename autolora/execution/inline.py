"""Segments run in this process, one after the other, on the resident base."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from autolora.execution.devices import check_alone, check_cards, idle_cards
from autolora.execution.executor import Executor, LostWorker, Pack
from autolora.search import Job
from autolora.spec import Spec
from autolora.trainers import LostSegment, Outcome, Progress, Trainer


class InlineExecutor(Executor):
    """The executor of one machine without workers: the trainer that it is started with runs the jobs.

    Args:
        spec: whose base the trainer holds; None means one that is on a single device.

    Raises:
        DevicesError: the specification asks for more GPUs than this process sees, or for several nodes.
    """

    def __init__(self, spec: Spec | None = None) -> None:
        if spec is not None:
            check_alone(spec)
            check_cards(spec)
        self._spec = spec
        self._packs: deque[Pack] = deque()

    def about(self) -> Sequence[str]:
        return [] if self._spec is None else idle_cards(self._spec)

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
        return [self._outcome(each, on_step) for each in self._packs.popleft()]

    def _outcome(self, job: Job, on_step: Callable[[Progress], None]) -> Outcome | LostWorker:
        try:
            return self._trainer.run(job, on_step)
        except LostSegment as lost:
            return LostWorker((job.trial,), str(lost))

    def close(self) -> None:
        self._packs.clear()
