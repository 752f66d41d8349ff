"""Row scores of studies whose record lacks them, read from their checkpoints."""

from __future__ import annotations

from autolora.search.policy import Plan
from autolora.search.trials import TrialTable
from autolora.trainers.checkpoint import example_scores
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
