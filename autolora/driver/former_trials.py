"""What the record of a study by an earlier version lacks, read from its checkpoints."""

from __future__ import annotations

from autolora.search.policy import Plan
from autolora.search.trials import TrialTable
from autolora.trainers.checkpoint import example_scores, read_manifest, trial_folder
from autolora.trainers.places import Location


def recall_rows(table: TrialTable, plan: Plan, checkpoints: Location) -> None:
    """Add to the table what evaluation rows added to full-length scores, where only the manifests tell.

    Studies record it themselves now; those of earlier versions do not. Trials whose manifests are gone stay unknown.

    Args:
        table, plan: of the study.
        checkpoints: root of its checkpoints, see :func:`autolora.trainers.checkpoint.root_of`.
    """
    complete = (trial for name in plan.variants for trial in table.complete(name))
    missing = [trial.number for trial in complete if trial.rows is None]
    table.recall_rows(example_scores(checkpoints, missing))


def examples_in_an_uncut_run(table: TrialTable, checkpoints: Location) -> int:
    """Training examples of a full run whose last batch does not end with the run; 0 if there is none.

    Of all such trials the one of the largest batch is looked at.

    Args:
        table: of a study that is trained in whole optimizer steps.
        checkpoints: as for :func:`recall_rows`.
    """
    examples = table.examples or 1
    complete = [trial for trial in table.trials if trial.outcome == "complete" and examples % trial.config.batch_size]
    if not complete:
        return 0
    manifest = read_manifest(trial_folder(checkpoints, max(complete, key=lambda trial: trial.config.batch_size).number))
    return manifest.examples if manifest else 0
