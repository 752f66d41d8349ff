"""Checkpoints of a trial: written beside, synced, renamed; found again by looking for the newest one that is whole."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from autolora.errors import AutoloraError
from autolora.scores import Scores

MANIFEST, STATE = "manifest.json", "state.pt"
KEEP = 2
"""The newest checkpoint, and the one before it for when the newest turns out to be damaged."""


class CheckpointError(AutoloraError, OSError):
    """A checkpoint cannot be written; the ones before it are intact."""


@dataclass
class Manifest:
    """What a checkpoint says of its trial, readable without torch.

    Attributes:
        trial, variant, config, seed: whose it is.
        step: optimiser steps done.
        examples: training examples seen; the data position follows from it and the seed.
        scores: score at each rung reached, by rung index.
        losses, gradient_norms: one value an optimiser step.
        seconds: wall time of training and evaluation so far.
        totals, weights: what each evaluation row contributes to the full-length score, see
            :class:`autolora.scores.Scores`; empty before, and where the metric tells nothing of rows.
    """

    trial: int
    variant: str
    config: dict[str, Any]
    seed: int
    step: int = 0
    examples: int = 0
    scores: dict[int, float] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    gradient_norms: list[float] = field(default_factory=list)
    seconds: float = 0.0
    totals: list[float] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)


def trial_folder(folder: Path, trial: int) -> Path:
    """Where a trial of the run directory ``folder`` keeps its checkpoints."""
    return folder / "trials" / str(trial)


def save(folder: Path, manifest: Manifest, state: dict[str, Any]) -> Path:
    """Commit a checkpoint to ``folder/step-<n>`` and drop those older than the one before it.

    Args:
        folder: of the trial.
        manifest: see :class:`Manifest`.
        state: tensors and plain values, as ``torch.save`` takes them.

    Raises:
        CheckpointError: the disk is full or not writable. What was there before stays.
    """
    import torch

    name = f"step-{manifest.step:09d}"
    beside = folder / f".{name}.tmp"
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        # Serialised in memory first: torch's writer hides why a write failed, and the digest is then of what was meant.
        content = io.BytesIO()
        torch.save(state, content)
        digest = hashlib.sha256(content.getbuffer()).hexdigest()
        _write(beside / STATE, content.getbuffer())
        _write(beside / MANIFEST, json.dumps({**asdict(manifest), "sha256": digest}).encode())
        final = folder / name
        shutil.rmtree(final, ignore_errors=True)
        beside.rename(final)
        _sync_folder(folder)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise _explained(error, folder) from error
    for old in _newest_first(folder)[KEEP:]:
        shutil.rmtree(old)
    return final


def newest(folder: Path) -> tuple[Manifest, dict[str, Any]] | None:
    """The newest whole checkpoint of a trial with its state, or None. Damaged ones are passed over."""
    import torch

    for path in _newest_first(folder):
        manifest = read_manifest(path)
        if manifest is not None:
            return manifest, torch.load(path / STATE, map_location="cpu", weights_only=True)
    return None


def read_manifest(path: Path) -> Manifest | None:
    """The manifest of one checkpoint, or None where the checkpoint was cut short or altered."""
    try:
        raw = json.loads((path / MANIFEST).read_text())
        if raw.pop("sha256") != _digest(path / STATE):
            return None
        raw["scores"] = {int(rung): value for rung, value in raw["scores"].items()}
        return Manifest(**raw)
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        return None


def example_scores(folder: Path, trials: Iterable[int]) -> dict[int, Scores]:
    """What each evaluation row contributes to full-length scores, of those trials of a run directory that tell it.

    Trials of earlier versions, and of metrics that give one number for all rows, do not.
    """
    found: dict[int, Scores] = {}
    for trial in trials:
        manifests = (read_manifest(path) for path in _newest_first(trial_folder(folder, trial)))
        manifest = next((each for each in manifests if each is not None), None)
        if manifest is not None and manifest.totals:
            found[trial] = Scores.of(manifest.totals, manifest.weights)
    return found


def discard(folder: Path) -> None:
    """Remove all checkpoints of a trial; nothing happens where there are none."""
    shutil.rmtree(folder, ignore_errors=True)


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), reverse=True)


def _write(path: Path, content: bytes | memoryview) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _explained(error: OSError, folder: Path) -> CheckpointError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    cause = "no space left on the disk" if full else str(error)
    return CheckpointError(
        f"cannot write a checkpoint to {folder}: {cause}. Earlier checkpoints are intact; "
        "free some space and run the same command again to continue"
    )
