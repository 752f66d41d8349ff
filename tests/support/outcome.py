"""What two studies are compared by that should be the same."""

from __future__ import annotations

import json
from pathlib import Path

from autolora.study.directory import read_study


def lost(folder: Path) -> int:
    """How many workers a study has lost."""
    return sum(trial.lost for trial in read_study(folder)[0].trials)


def outcome(folder: Path) -> tuple:
    """Everything but times: results, and the whole trial table."""
    best = json.loads((folder / "best.json").read_text())
    for tuned in best["variants"].values():
        del tuned["seconds"], tuned["run_seconds"], tuned["adapter_dir"]
        del tuned["cheapest"]
        if tuned["smallest"] is not None:
            del tuned["smallest"]["seconds"]
    trials, _ = read_study(folder)
    table = [
        (t.number, t.variant, t.config, t.seed, t.purpose, t.scores, t.outcome, t.reason, t.promotions, t.metrics)
        for t in trials.trials
    ]
    return best["variants"], best["spent"], best["verdict"], table
