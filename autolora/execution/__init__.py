"""Where jobs run. Importing this is cheap: it is where the command line finds the executors' names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from autolora import urls
from autolora.execution.executor import Executor, LostWorker, MissingExecutorError, Pack, UnknownExecutorError

if TYPE_CHECKING:
    from autolora.spec import Spec
    from autolora.trainers import Trainer

__all__ = [
    "EXECUTORS",
    "Executor",
    "LostWorker",
    "MissingExecutorError",
    "Pack",
    "UnknownExecutorError",
    "make_executor",
]


def _inline(spec: Spec, folder: Path, trainer: Trainer) -> Executor:
    from autolora.execution.inline import InlineExecutor

    return InlineExecutor(trainer)


def _ray(spec: Spec, folder: Path, trainer: Trainer) -> Executor:
    try:
        import ray.tune  # noqa: F401
    except ImportError as error:
        raise MissingExecutorError(
            f'executor "ray" needs Ray Tune: pip install "autolora-tune[ray]" ({error})'
        ) from None
    from autolora.execution.ray_tune import RayTuneExecutor
    from autolora.trainers import checkpoint

    mark = checkpoint.mark(checkpoint.root_of(spec.checkpoints, folder))
    return RayTuneExecutor(_for_workers(spec), folder, mark)


def _for_workers(spec: Spec) -> Spec:
    """The specification with what workers need of this process's environment, and without what they need not know."""
    from autolora.trainers.places import is_url

    checkpoints = spec.checkpoints
    if checkpoints is not None and is_url(checkpoints):
        checkpoints = urls.resolved(checkpoints)
    return spec.model_copy(update={"checkpoints": checkpoints, "storage": None})


EXECUTORS: dict[str, Callable[[Spec, Path, Trainer], Executor]] = {"inline": _inline, "ray": _ray}
"""Makes the executor of a name for a specification; imports what it needs."""


def make_executor(name: str, spec: Spec, folder: Path, trainer: Trainer) -> Executor:
    """The executor of that name.

    Args:
        name: one of EXECUTORS.
        spec: what workers load.
        folder: run directory.
        trainer: of this process.

    Raises:
        UnknownExecutorError: there is none.
        MissingExecutorError: what it needs is not installed.
    """
    if name not in EXECUTORS:
        raise UnknownExecutorError(f"executor {name!r} is unknown; use one of {', '.join(EXECUTORS)}")
    return EXECUTORS[name](spec, folder, trainer)
