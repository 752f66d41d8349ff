"""Where jobs run. Importing this is cheap: it is where the command line finds the executors' names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from autolora.execution.executor import Executor, LostWorker, MissingExecutorError, Pack, UnknownExecutorError

if TYPE_CHECKING:
    from autolora.spec import Spec

__all__ = [
    "EXECUTORS",
    "Executor",
    "LostWorker",
    "MissingExecutorError",
    "Pack",
    "UnknownExecutorError",
    "make_executor",
]


def _inline(spec: Spec, folder: Path) -> Executor:
    from autolora.execution.inline import InlineExecutor

    return InlineExecutor(spec)


def _ray(spec: Spec, folder: Path) -> Executor:
    try:
        import ray.tune  # noqa: F401
    except ImportError as error:
        raise MissingExecutorError(
            f'executor "ray" needs Ray Tune: pip install "autolora-tune[ray]" ({error})'
        ) from None
    from autolora.execution.ray_tune import RayTuneExecutor

    return RayTuneExecutor(spec, folder)


EXECUTORS: dict[str, Callable[[Spec, Path], Executor]] = {"inline": _inline, "ray": _ray}
"""Makes the executor of a name for a specification; imports what it needs, and checks that it can run."""


def make_executor(name: str, spec: Spec, folder: Path) -> Executor:
    """The executor of that name, checked and ready for :meth:`Executor.start`.

    Args:
        name: one of EXECUTORS.
        spec: what workers load.
        folder: run directory.

    Raises:
        UnknownExecutorError: there is none.
        MissingExecutorError: what it needs is not installed.
        AutoloraError: it cannot run what the specification asks for, such as ``ClusterError`` of "ray".
    """
    if name not in EXECUTORS:
        raise UnknownExecutorError(f"executor {name!r} is unknown; use one of {', '.join(EXECUTORS)}")
    return EXECUTORS[name](spec, folder)
