"""What runs jobs: an executor takes packs of jobs and gives back their outcomes, in any order.

A pack is a tuple of jobs that one worker takes at once; of length one today.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from autolora.errors import AutoloraError

if TYPE_CHECKING:
    from autolora.search import Job
    from autolora.trainers import Outcome, Progress

Pack: TypeAlias = "tuple[Job, ...]"


@dataclass(frozen=True)
class LostWorker:
    """A worker died with these trials; nothing is wrong with them. ``reason``: in words, as far as it is known."""

    trials: tuple[int, ...]
    reason: str = "it died"


class Executor(Protocol):
    """Runs packs. Implementations inherit the contract tests in ``tests/support/executor_contract.py``."""

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

    def close(self) -> None:
        """Stop the workers; checkpoints stay."""


class MissingExecutorError(AutoloraError, ImportError):
    """What an executor needs is not installed."""


class UnknownExecutorError(AutoloraError, ValueError):
    """No executor has that name."""
