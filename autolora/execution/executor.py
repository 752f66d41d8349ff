"""What runs jobs: an executor takes packs of jobs and gives back their outcomes, in any order.

A pack is a tuple of jobs that one worker takes at once; of length one today.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from autolora.errors import AutoloraError

if TYPE_CHECKING:
    from autolora.search import Job
    from autolora.trainers import Outcome, Progress, Trainer

Pack: TypeAlias = "tuple[Job, ...]"


@dataclass(frozen=True)
class LostWorker:
    """A worker died with these trials, or failed where another may not; they are handed out again.

    Attributes:
        trials: numbers of the trials that it was training.
        reason: why it was lost, as far as it is known.
        worker: which one, such as "host gpu-3, pid 4711"; empty if it is not known.
        node: where it ran, such as "node 3f2a91c0 (10.0.0.7)"; empty if it is not known.
    """

    trials: tuple[int, ...]
    reason: str = "it died"
    worker: str = ""
    node: str = ""

    @property
    def where(self) -> str:
        """Worker and node in brackets, with a space in front; empty if neither is known."""
        known = ", ".join(each for each in (self.worker, self.node) if each)
        return f" ({known})" if known else ""


class Executor(Protocol):
    """Runs packs. Implementations inherit this class and the contract tests in ``tests/support/executor_contract.py``.

    An executor is made before anything is loaded. Its constructor checks all that can go wrong without a model, such as
    whether a cluster can be reached and has room; :meth:`start` is called once the model is loaded.
    """

    @property
    def in_process(self) -> bool:
        """Whether jobs run in this process alone: what earlier ones left half-written nobody writes on then."""
        return False

    def about(self) -> Sequence[str]:
        """Where jobs run, in lines for the user; none by default."""
        return ()

    def start(self, trainer: Trainer) -> None:
        """Called once, before the first pack; does nothing by default.

        Args:
            trainer: of this process.
        """

    @property
    def capacity(self) -> int:
        """Packs that can be in flight at once, now."""

    def submit(self, pack: Pack) -> None:
        """Take a pack; returns at once. At most ``capacity`` are in flight."""

    def wait(self, on_step: Callable[[Progress], None]) -> Iterable[Outcome | LostWorker]:
        """Block until submitted jobs have ended, and return them; or none after a while, for the caller to look up.

        Args:
            on_step: told about optimizer steps as they are heard of, of no trial that has been returned; it may raise
                :class:`autolora.trainers.Interrupted` to stop.

        Raises:
            Exception: an error in the user's data or metric, as it was raised.
        """

    def hurry(self, seconds: float) -> None:
        """Have :meth:`close` wait at most so long for checkpoints of what is being trained; nothing by default. What is
        lost is trained again from the checkpoint before.
        """
        return

    def close(self) -> None:
        """Stop the workers; checkpoints stay. Called before or after :meth:`start`, and more than once."""


class MissingExecutorError(AutoloraError, ImportError):
    """What an executor needs is not installed."""


class UnknownExecutorError(AutoloraError, ValueError):
    """No executor has that name."""
