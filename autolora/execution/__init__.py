"""Where jobs run. An executor takes packs of jobs and gives back their outcomes, in any order.

A pack is a tuple of jobs that one worker takes at once; of length one today. Importing this is cheap: it is where the
command line finds the executors' names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from autolora.errors import AutoloraError

if TYPE_CHECKING:
    from autolora.search import Job
    from autolora.spec import Spec
    from autolora.training.segment import Outcome, Progress
    from autolora.training.workbench import Workbench

Pack: TypeAlias = "tuple[Job, ...]"


@dataclass(frozen=True)
class LostWorker:
    """A worker died with these trials; nothing is wrong with them. ``reason``: in words, as far as it is known."""

    trials: tuple[int, ...]
    reason: str = "it died"


class Executor(Protocol):
    """Runs packs. Implementations pass the contract tests in ``tests/execution``."""

    @property
    def capacity(self) -> int:
        """Packs that can be in flight at once, now."""

    def submit(self, pack: Pack) -> None:
        """Take a pack; returns at once. At most ``capacity`` are in flight."""

    def wait(self, on_step: Callable[[Progress], None]) -> Iterable[Outcome | LostWorker]:
        """Block until submitted jobs have ended, and return them; or none after a while, for the caller to look up.

        Args:
            on_step: told about optimiser steps as they are heard of, of no trial that has been returned; it may raise
                :class:`autolora.training.segment.Interrupted` to stop.

        Raises:
            Exception: an error in the user's data or metric, as it was raised.
        """

    def close(self) -> None:
        """Stop the workers; checkpoints stay."""


class MissingExecutorError(AutoloraError, ImportError):
    """What an executor needs is not installed."""


class UnknownExecutorError(AutoloraError, ValueError):
    """No executor has that name."""


def _inline(spec: Spec, bench: Workbench) -> Executor:
    from autolora.execution.inline import InlineExecutor

    return InlineExecutor(bench)


def _ray(spec: Spec, bench: Workbench) -> Executor:
    try:
        import ray.tune  # noqa: F401
    except ImportError as error:
        raise MissingExecutorError(f'executor "ray" needs Ray Tune: pip install "autolora[ray]" ({error})') from None
    from autolora.execution.ray_tune import RayTuneExecutor
    from autolora.training import checkpoint

    return RayTuneExecutor(spec, bench.folder, checkpoint.mark(bench.checkpoints))


EXECUTORS: dict[str, Callable[[Spec, Workbench], Executor]] = {"inline": _inline, "ray": _ray}
"""Makes the executor of a name for a specification; imports what it needs."""


def make_executor(name: str, spec: Spec, bench: Workbench) -> Executor:
    """The executor of that name.

    Raises:
        UnknownExecutorError: there is none.
        MissingExecutorError: what it needs is not installed.
    """
    if name not in EXECUTORS:
        raise UnknownExecutorError(f"executor {name!r} is unknown; use one of {', '.join(EXECUTORS)}")
    return EXECUTORS[name](spec, bench)
