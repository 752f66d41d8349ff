"""What follows a search: test scores, exported adapters and ``best.json``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import yaml

from autolora import files
from autolora.analysis.best import Best, best
from autolora.analysis.verdict import judge
from autolora.driver.loop import Loop
from autolora.driver.result import BEST_FILE, BEST_FOLDER, TunedVariant, TuneResult
from autolora.driver.rows import recall_rows
from autolora.spec import Spec
from autolora.study.versions import installed_versions
from autolora.trainers import Trainer
from autolora.variants import registry

ADAPTER_SETTINGS = "autolora.yaml"
"""File beside an exported adapter with the variant's part of ``best.json``."""


def conclude(loop: Loop, trainer: Trainer, spec: Spec, folder: Path, began: float) -> TuneResult:
    """Score the test split, export the adapters, write ``best.json``.

    Args:
        loop: whose search is over.
        trainer: tests and exports.
        spec: of the study.
        folder: run directory.
        began: when the call began, by ``time.monotonic``.
    """
    loop.removed.clear()  # once more, for what workers wrote that had been given up
    loop.tidy()
    search = loop.search
    recall_rows(search.table, search.plan, loop.checkpoints)
    found = best(search.table, search.plan.variants, search.space.rank)
    tuned = _earlier(folder, search.outdated)
    order = min if search.direction == "minimize" else max
    for name, one in found.items():
        loop.callbacks.on_export_start(name)
        chosen = one.trials[one.seeds.index(order(one.seeds))]
        tuned[name] = _exported(trainer, folder / BEST_FOLDER / name, one, chosen)
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
    )
    result.save()
    return result


def _earlier(folder: Path, outdated: Sequence[str]) -> dict[str, TunedVariant]:
    """What the run directory says already of variants that are not continued."""
    if not outdated or not (folder / BEST_FILE).is_file():
        return {}
    known = TuneResult.load(folder)
    return {name: known[name] for name in outdated if name in known}


def _exported(trainer: Trainer, adapter: Path, found: Best, chosen: int) -> TunedVariant:
    """The variant's outcome, with its test score and the adapter of trial ``chosen`` in the folder ``adapter``."""
    scores = [trainer.test(trial) for trial in found.trials]
    known = [score for score in scores if score is not None]
    trainer.export(chosen, adapter)
    tuned = replace(found, test=fmean(known) if known else None, adapter_dir=str(adapter))
    files.write(adapter / ADAPTER_SETTINGS, yaml.safe_dump(tuned.as_dict(), sort_keys=False))
    return tuned
