"""What follows a search: test scores, exported adapters and ``best.json``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from autolora.analysis.best import Best, best
from autolora.analysis.verdict import judge
from autolora.driver.former_trials import recall_rows
from autolora.driver.loop import Loop
from autolora.driver.result import BEST_FILE, TunedVariant, TuneResult
from autolora.driver.usable import Usable, usable
from autolora.driver.weights import Weights
from autolora.search.trials import TrialTable
from autolora.spec import Spec
from autolora.study.versions import installed_versions
from autolora.trainers import Trainer
from autolora.variants import registry


def conclude(loop: Loop, trainer: Trainer, spec: Spec, folder: Path, began: float) -> TuneResult:
    """Score the test split, export the adapters, write ``best.json``.

    Args:
        loop: whose search is over, or is to end here.
        trainer: tests and exports.
        spec: of the study.
        folder: run directory.
        began: when the call began, by ``time.monotonic``.
    """
    loop.removed.clear()  # once more, for what workers wrote that had been given up
    loop.tidy()
    search = loop.search
    recall_rows(search.table, search.plan, loop.checkpoints)
    runs = {name: usable(search.table, name, loop.weights) for name in search.plan.variants}
    chosen = {name: each for name, each in runs.items() if each is not None}
    instead = {name: each.config for name, each in chosen.items()}
    found = best(search.table, search.plan.variants, search.space.rank, instead)
    tuned = _earlier(folder, search.outdated)
    for name, one in found.items():
        loop.callbacks.on_export_start(name)
        tuned[name] = _exported(search.table, trainer, loop.weights, name, one, chosen[name])
    loop.seconds["total"] = time.monotonic() - began
    result = TuneResult(
        variants=tuned,
        spent={name: search.table.spent(name) for name in (*search.outdated, *search.plan.variants)},
        versions=installed_versions(),
        metric=spec.metric.name,
        direction=search.direction,
        folder=folder,
        seconds=dict(loop.seconds),
        verdict=judge(search.table, found, registry.simple(found)),
        training=trainer.resolved(),
        scores=search.table.scored,
    )
    result.save()
    return result


def _earlier(folder: Path, outdated: Sequence[str]) -> dict[str, TunedVariant]:
    """What the run directory says already of variants that are not continued."""
    if not outdated or not (folder / BEST_FILE).is_file():
        return {}
    known = TuneResult.load(folder)
    return {name: known[name] for name in outdated if name in known}


def _exported(
    table: TrialTable, trainer: Trainer, weights: Weights, variant: str, found: Best, chosen: Usable
) -> TunedVariant:
    """The variant's outcome, with its test score and its adapter, of the best seed that is left."""
    if not chosen.left:
        return replace(found, notes=chosen.notes)
    adapter = str(weights.exported / variant)
    kept = weights.kept(variant, chosen.runs)
    if kept is not None:
        return replace(found, test=kept.get("test"), adapter_dir=adapter, notes=tuple(kept.get("notes", ())))
    scores = [trainer.test(trial.number) for trial in chosen.left]
    known = [score for score in scores if score is not None]
    last = len(table.rungs) - 1
    trial = min(chosen.left, key=lambda trial: table.sign * trial.scores[last])
    trainer.export(trial.number, weights.exported / variant)
    tuned = replace(found, test=fmean(known) if known else None, adapter_dir=adapter, notes=chosen.notes)
    weights.record(variant, tuned)
    return tuned
