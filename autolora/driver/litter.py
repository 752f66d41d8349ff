"""What killed processes left half-written in a run directory."""

from __future__ import annotations

from pathlib import Path

from autolora import files
from autolora.adapters.export import sweep_staged
from autolora.driver.result import BEST_FOLDER
from autolora.spec import Spec
from autolora.trainers import checkpoint
from autolora.trainers.builtin.workbench import FACTORS
from autolora.trainers.places import ABANDONED


def sweep(spec: Spec, folder: Path, alone: bool) -> None:
    """Remove it. Whole files, and what a user keeps there, stay.

    Args:
        spec: of the study.
        folder: run directory, held by this process.
        alone: no other process trains this study. Otherwise workers of a driver that was killed may still be writing
            checkpoints, and only old half-written ones are removed.

    Raises:
        CheckpointError: the checkpoints cannot be reached.
    """
    for part in (folder, folder / "data", *([folder / FACTORS] if alone else [])):
        files.sweep(part)
    for name in {*spec.names, *(adapter.name for adapter in (folder / BEST_FOLDER).glob("[!.]*"))}:
        sweep_staged(folder / BEST_FOLDER / name)
    checkpoint.sweep(checkpoint.root_of(spec.checkpoints, folder), 0.0 if alone else ABANDONED)
