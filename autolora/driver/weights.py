"""Which completed trials still have what they trained: in their checkpoints, or in an adapter exported before."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from autolora import files
from autolora.adapters.export import WEIGHTS
from autolora.analysis.best import Best
from autolora.files import Document
from autolora.search.trials import Trial
from autolora.trainers import Trainer
from autolora.trainers.checkpoint import LostCheckpointError

SETTINGS = "autolora.yaml"
"""File beside an exported adapter with the variant's part of ``best.json``, and with what it was exported from."""


@dataclass(frozen=True)
class Weights:
    """What the completed trials of a study have trained.

    Attributes:
        trainer: whose trials they are.
        exported: folder with an exported adapter for each variant.
    """

    trainer: Trainer
    exported: Path

    def lost(self, variant: str, runs: Sequence[Trial]) -> dict[int, str]:
        """The reason by number for each of these trials that can neither be tested nor exported.

        None is lost where the adapter of just these runs was exported before and is whole.

        Args:
            variant: its name.
            runs: of one configuration, one a seed.

        Raises:
            CheckpointError: it cannot be told, as the place of the checkpoints cannot be read.
        """
        found = self._without_checkpoint(runs)
        return {} if found and self._exported_of(variant, runs) else found

    def kept(self, variant: str, runs: Sequence[Trial]) -> Document | None:
        """What lies beside an adapter of these runs that cannot be exported again, as checkpoints are gone.

        Args:
            variant, runs: as for :meth:`lost`.

        Returns:
            As :meth:`record` wrote it; None where the checkpoints are there, or no adapter of just these runs is.
        """
        return self._exported_of(variant, runs) if self._without_checkpoint(runs) else None

    def _without_checkpoint(self, runs: Sequence[Trial]) -> dict[int, str]:
        found = {}
        for trial in runs:
            try:
                self.trainer.verify(trial.number)
            except LostCheckpointError as error:
                found[trial.number] = str(error)
        return found

    def _exported_of(self, variant: str, runs: Sequence[Trial]) -> Document | None:
        """What lies beside the adapter that was exported of just these runs; None if there is none, or not whole."""
        path = self.exported / variant / SETTINGS
        known = _settings(path)
        if known.get("config") != runs[0].config.as_dict():
            return None
        if "files" not in known:  # of an earlier version, which recorded neither trials nor digests
            scores = [trial.scores[trial.reached] for trial in runs]
            return known if known.get("seeds") == scores and _opens(path.parent / WEIGHTS) else None
        numbers = [trial.number for trial in runs]
        return known if known.get("trials") == numbers and known["files"] == _digests(path.parent) else None

    def record(self, variant: str, found: Best) -> None:
        """Write what an adapter that was just exported is of."""
        folder = self.exported / variant
        facts = {**found.as_dict(), "trials": list(found.trials), "files": _digests(folder)}
        files.write(folder / SETTINGS, yaml.safe_dump(facts, sort_keys=False))


def _settings(path: Path) -> Document:
    """Content of the file; empty where it is damaged or not there, which is then the same."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _opens(file: Path) -> bool:
    """Whether a safetensors file is there, and as long as it says."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy"):
            return True
    except (OSError, SafetensorError):
        return False


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of the files in the folder of an exported adapter, by name."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name != SETTINGS:
            found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found
