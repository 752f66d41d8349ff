"""Where segments run. An executor takes packs of segments and gives back their outcomes, in any order.

A pack is a tuple of segments that one worker takes at once; of length one today.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from autolora.training.segment import Outcome, Progress, Segment

Pack = tuple[Segment, ...]


@dataclass(frozen=True)
class LostWorker:
    """A worker died with these trials; nothing is wrong with them."""

    trials: tuple[int, ...]


class Executor(Protocol):
    """Runs packs. Implementations pass the contract tests in ``tests/execution``."""

    capacity: int
    """Packs that can be in flight at once."""

    def submit(self, pack: Pack) -> None:
        """Take a pack; returns at once. At most ``capacity`` are in flight."""

    def wait(self, on_step: Callable[[Progress], None]) -> Iterable[Outcome | LostWorker]:
        """Block until at least one submitted segment has ended, and return what has.

        Args:
            on_step: told about optimiser steps as they are heard of; it may raise
                :class:`autolora.training.segment.Interrupted` to stop.

        Raises:
            Exception: an error in the user's data or metric, as it was raised.
        """

    def close(self) -> None:
        """Stop the workers; checkpoints stay."""
