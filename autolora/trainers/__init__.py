"""Trainers. The only one so far is our own loop, in ``builtin``; checkpoints and divergence serve every trainer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from autolora.search.rungs import horizon
from autolora.trainers.trainer import Interrupted, Measurable, Outcome, Progress, Trainer

if TYPE_CHECKING:
    from autolora.spec import Spec

__all__ = ["Interrupted", "Measurable", "Outcome", "Progress", "Trainer", "horizon", "open_trainer"]


def open_trainer(spec: Spec, folder: Path) -> Trainer:
    """The trainer of a specification, with model and data loaded.

    Args:
        spec: what is tuned.
        folder: run directory.

    Raises:
        CheckpointError: nothing serves the URL of the checkpoints.
        ModelError, DataError: model or data cannot be loaded.
        MetricError: the metric is not there, or the data lack what it needs.
    """
    from autolora.trainers.builtin.trainer import BuiltinTrainer

    return BuiltinTrainer.open(spec, folder)
