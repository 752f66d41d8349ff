"""Why a study has no result, in words."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from autolora import files
from autolora.search.trials import Trial
from autolora.study.directory import read_study

REMEDIES = {
    "diverged": "lower the range of space.learning_rate",
    "infeasible": "follow what the reason says, such as to lower space.rank, space.batch_size or training.max_length",
}
"""By the outcome of trials."""


def nothing_tuned(folder: Path) -> str:
    """What became of the trials of a run directory in which no variant has a run that was trained to the end.

    Raises:
        NoStudyError: nothing was started there.
    """
    table, plan = read_study(folder)
    failed_all = not any(trial.healthy for trial in table.trials)
    why = "no trial could be trained to the end" if failed_all else "no trial has been trained to the end yet"
    lines = [f"nothing was tuned in {files.shown(folder)}: {why}"]
    for variant in plan.variants:
        trials = [trial for trial in table.trials if trial.variant == variant]
        failed = [trial for trial in trials if not trial.healthy]
        lines.append(f"  {variant}: {_counted(trials)}{_last(failed)}")
    found = Counter(trial.outcome for trial in table.trials if not trial.healthy)
    remedies = [REMEDIES[outcome] for outcome, _ in found.most_common() if outcome in REMEDIES]
    if remedies:
        lines.append(f"In a new --dir, {' and '.join(remedies)}.")
    else:
        lines.append(
            f"`autolora resume {files.argument(folder)}` goes on with it; with --budget, beyond the budget it had."
        )
    return "\n".join(lines)


def _counted(trials: list[Trial]) -> str:
    counts = Counter("not trained to the end" if trial.healthy else str(trial.outcome) for trial in trials)
    each = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
    return f"{len(trials)} trials{f' ({each})' if each else ''}"


def _last(failed: list[Trial]) -> str:
    return f"; trial {failed[-1].number}: {failed[-1].reason}" if failed else ""
