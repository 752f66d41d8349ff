"""Which completed trials still have what they trained: in their checkpoints, or in an adapter exported before."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
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
CHUNK = 1 << 20
"""Bytes of a file that are hashed at once."""


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
        return known if known.get("trials") == numbers and _holds(path.parent, known["files"]) else None

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
    """SHA-256 of the files in the folder of an exported adapter and its subfolders, by name."""
    found = {}
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            if path != folder / SETTINGS and path.is_file():
                found[path.relative_to(folder).as_posix()] = _digest(path)
    return found


def _holds(folder: Path, digests: Mapping[str, str]) -> bool:
    """Whether a folder has these files, and no others beside them: those of two exports must not mix.

    Earlier versions recorded no files of subfolders, and exported none: what a user keeps there does not count.
    """
    found = _digests(folder)
    flat = not any("/" in name for name in digests)
    return {name: digest for name, digest in found.items() if not (flat and "/" in name)} == dict(digests)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(CHUNK):
            digest.update(part)
    return digest.hexdigest()
