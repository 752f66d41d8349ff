"""What follows a search: test scores, exported adapters and ``best.json``."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import yaml

from autolora import files
from autolora.analysis.best import Best, best
from autolora.analysis.verdict import judge
from autolora.driver.loop import Loop
from autolora.driver.result import BEST_FOLDER, TunedVariant, TuneResult
from autolora.driver.rows import recall_rows
from autolora.spec import Spec
from autolora.study.versions import installed_versions
from autolora.training.workbench import Workbench
from autolora.variants import registry

ADAPTER_SETTINGS = "autolora.yaml"
"""File beside an exported adapter with the variant's part of ``best.json``."""


def conclude(loop: Loop, spec: Spec, began: float) -> TuneResult:
    """Score the test split, export the adapters, write ``best.json``.

    Args:
        loop: whose search is over.
        spec: of the study.
        began: when the call began, by ``time.monotonic``.
    """
    loop.removed.clear()  # once more, for what workers wrote that had been given up
    loop.tidy()
    search, bench = loop.search, loop.bench
    recall_rows(search.table, search.plan, bench.checkpoints)
    found = best(search.table, search.plan.variants)
    order = min if search.direction == "minimize" else max
    tuned = {}
    for name, one in found.items():
        loop.reporter.concluding(name)
        chosen = one.trials[one.seeds.index(order(one.seeds))]
        tuned[name] = _exported(bench, name, one, chosen)
    loop.seconds["total"] = time.monotonic() - began
    result = TuneResult(
        variants=tuned,
        spent=search.spent,
        versions=installed_versions(),
        metric=spec.metric.name,
        direction=search.direction,
        folder=bench.folder,
        seconds=dict(loop.seconds),
        verdict=judge(search.table, found, registry.simple(found)),
    )
    result.save()
    return result


def _exported(bench: Workbench, name: str, found: Best, chosen: int) -> TunedVariant:
    """The variant's outcome, with its test score and the adapter of trial ``chosen`` in the run directory."""
    test = None
    if bench.data.test is not None:
        test = fmean(_test_score(bench, trial) for trial in found.trials)
    adapter = bench.folder / BEST_FOLDER / name
    with bench.trained(chosen) as adapted:
        bench.variant(name, found.config).export(adapted, adapter)
    tuned = replace(found, test=test, adapter_dir=str(adapter))
    files.write(Path(adapter) / ADAPTER_SETTINGS, yaml.safe_dump(tuned.as_dict(), sort_keys=False))
    return tuned


def _test_score(bench: Workbench, trial: int) -> float:
    assert bench.data.test is not None
    with bench.trained(trial) as adapted:
        return bench.evaluate(adapted, bench.data.test)
