"""The trials of a study as a trainer finds them: whose a checkpoint is, and what a completed trial has left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from autolora.search import Job
from autolora.trainers import checkpoint
from autolora.trainers.checkpoint import LostCheckpointError, Manifest
from autolora.trainers.places import Location, shown
from autolora.trainers.trainer import Outcome

T = TypeVar("T")


@dataclass(frozen=True)
class Trials:
    """The checkpoints of a study's trials, for trainers.

    Args:
        root: of the study's checkpoints, see :func:`autolora.trainers.checkpoint.root_of`.
        identity: makes a digest of what training depends on beside the trial.
    """

    root: Location
    identity: Callable[[], str]

    def folder(self, trial: int) -> Location:
        """Where a trial keeps its checkpoints."""
        return checkpoint.trial_folder(self.root, trial)

    def fresh(self, job: Job) -> Manifest:
        """What a trial begins with."""
        return Manifest(job.trial, job.variant, job.config.as_dict(), job.seed, self.identity())

    def begun(self, job: Job, newest: Callable[[Location], tuple[Manifest, T] | None]) -> tuple[Manifest, T | None]:
        """The newest checkpoint of a trial, or a fresh manifest and None.

        Args:
            job: a segment of it.
            newest: reads one, as :func:`autolora.trainers.checkpoint.newest` does.

        Raises:
            CheckpointError: it is one of another study, or of another configuration.
        """
        fresh = self.fresh(job)
        found = newest(self.folder(job.trial))
        if found is None:
            return fresh, None
        manifest, state = found
        if manifest.study and manifest.study != fresh.study:
            raise checkpoint.CheckpointError(
                f"{shown(self.folder(job.trial))} holds a checkpoint of another model, dataset or training: studies "
                "cannot share a place for checkpoints; give each a folder of its own, with --dir or `checkpoints`"
            )
        if (manifest.variant, manifest.config, manifest.seed) != (fresh.variant, fresh.config, fresh.seed):
            raise checkpoint.CheckpointError(
                f"{shown(self.folder(job.trial))} holds a checkpoint of another configuration ({manifest.variant} "
                f"{manifest.config}, seed {manifest.seed}) than trial {job.trial} of the study: the study was "
                "replaced; remove the folder, or use another run directory"
            )
        return manifest, state

    def finished(
        self,
        trial: int,
        newest: Callable[[Location], tuple[Manifest, T] | None],
        steps: Callable[[Manifest], int],
    ) -> tuple[Manifest, T]:
        """The last checkpoint of a completed trial.

        Args:
            trial: its number.
            newest: as in :meth:`begun`.
            steps: optimizer steps of a full run with a manifest's configuration.

        Raises:
            LostCheckpointError: the trial has none that is whole and of its end: where the last was damaged, one of an
                earlier step must not stand in for it; or its weights have been shed.
            CheckpointError: the place cannot be read.
        """
        folder = self.folder(trial)
        found = newest(folder)
        if found is not None:
            manifest, _ = found
            if manifest.trial != trial or (manifest.study and manifest.study != self.identity()):
                raise LostCheckpointError(f"{folder} holds a checkpoint of another trial or study")
            last = steps(manifest)
            if manifest.step >= last:
                return found
            raise LostCheckpointError(
                f"its last checkpoint in {shown(folder)} is damaged or gone; of those before, the last is of step "
                f"{manifest.step} of {last}"
            )
        known = checkpoint.read_manifest(folder)
        if known is not None and not known.files:
            raise LostCheckpointError(
                f"its weights were removed from {shown(folder)}, since others of its variant were better: `keep` says "
                "of how many completed trials they stay"
            )
        raise LostCheckpointError(f"{shown(folder)} holds no intact checkpoint")


def scored(job: Job, manifest: Manifest) -> Outcome:
    """What a committed manifest says of a rung, where the trainer tells nothing of rows."""
    metrics = manifest.metrics.get(job.rung, {})
    return Outcome(
        job.trial, "scored", manifest.scores[job.rung], job.stop, "", manifest.seconds, metrics=dict(metrics)
    )
