"""Trainers, a folder a kind: our own loop in ``builtin``, and other people's. What they share is here."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from autolora.search.rungs import horizon
from autolora.trainers.trainer import Interrupted, LostSegment, Measurable, Outcome, Progress, SignOfLife, Trainer

if TYPE_CHECKING:
    from autolora.spec import Spec

__all__ = [
    "Interrupted",
    "LostSegment",
    "Measurable",
    "Outcome",
    "Progress",
    "SignOfLife",
    "Trainer",
    "horizon",
    "open_trainer",
    "warn_of_unused",
]


def open_trainer(spec: Spec, folder: Path) -> Trainer:
    """The trainer of a specification, with all that it needs loaded.

    Args:
        spec: what is tuned.
        folder: run directory.

    Raises:
        CheckpointError: nothing serves the URL of the checkpoints.
        ModelError, DataError: model or data cannot be loaded.
        MetricError: the metric is not there, or the data lack what it needs.
        AutoloraError: whatever else is wrong with a trainer's own settings.
    """
    module, _, name = spec.trainer.home.partition(":")
    opened: Trainer = getattr(importlib.import_module(module), name).open(spec, folder)
    return opened


def warn_of_unused(spec: Spec) -> None:
    """Warn of keys of a specification that say something and have no effect on its trainer."""
    given = [key for key in spec.trainer.ignores if _says_something(spec, key)]
    if given:
        verb = "has" if len(given) == 1 else "have"
        warnings.warn(
            f"{', '.join(given)} {verb} no effect with trainer {spec.trainer.kind!r}: set what it means in the "
            "trainer's own settings",
            stacklevel=2,
        )


def _says_something(spec: Spec, key: str) -> bool:
    section, _, name = key.partition(".")
    held = getattr(spec, section)
    value, default = held, type(spec).model_fields[section].get_default(call_default_factory=True)
    if name:
        value, default = getattr(held, name), type(held).model_fields[name].get_default(call_default_factory=True)
    return bool(value != default)
