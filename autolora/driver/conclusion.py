"""What follows a search: test scores, exported adapters and ``best.json``."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TypeVar

from autolora import files
from autolora.analysis.best import Best, best, partial
from autolora.analysis.durations import gains
from autolora.analysis.pareto import pareto
from autolora.analysis.verdict import judge
from autolora.bases.memory import collected, out_of_memory
from autolora.driver.former_trials import recall_rows
from autolora.driver.loop import Loop
from autolora.driver.result import BEST_FILE, TunedVariant, TuneResult
from autolora.driver.timing import Timing
from autolora.driver.usable import Usable, usable
from autolora.driver.weights import Weights
from autolora.errors import first_line
from autolora.search.trials import Trial, TrialTable
from autolora.spec import Spec
from autolora.study.versions import installed_versions
from autolora.trainers import Trainer
from autolora.variants import registry

T = TypeVar("T")


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
    shortfalls = search.shortfalls({name: one.config for name, one in found.items()})
    tuned = _earlier(folder, search.outdated)
    timing, concluding = loop.timing, time.monotonic()
    for place, (name, one) in enumerate(found.items(), start=1):
        loop.callbacks.on_export_start(name)
        exporting = _Exporting(search.table, trainer, loop.weights, timing, others=len(found) - place)
        tuned[name] = exporting.exported(name, one, chosen[name])
    if timing is not None:
        parts = {name: partial(search.table, name) for name in search.plan.variants}
        tuned |= {name: one for name, one in parts.items() if one is not None}
        timing.clock.concluding = time.monotonic() - concluding
    loop.seconds["total"] = time.monotonic() - began
    result = TuneResult(
        variants=tuned,
        spent={name: search.table.spent(name) for name in (*search.outdated, *search.plan.variants)},
        versions=installed_versions(),
        metric=spec.metric.name,
        direction=search.direction,
        folder=folder,
        seconds=dict(loop.seconds),
        verdict=judge(search.table, found, registry.simple(found), shortfalls),
        training=trainer.resolved(),
        scores=search.table.scored,
        durations=gains(search.table, search.space, found),
        pareto=pareto(search.table, search.plan.variants, spec.reported),
        ended="" if timing is None else timing.reason(search),
    )
    result.save()
    return result


def _earlier(folder: Path, outdated: Sequence[str]) -> dict[str, TunedVariant]:
    """What the run directory says already of variants that are not continued."""
    if not outdated or not (folder / BEST_FILE).is_file():
        return {}
    known = TuneResult.load(folder)
    return {name: known[name] for name in outdated if name in known}


@dataclass(frozen=True)
class _Exporting:
    """Tests and exports variants, within the time that is left.

    Attributes:
        table: everything that has happened.
        trainer: tests and exports.
        weights: of the completed trials.
        timing: None without a time budget.
        others: variants that are still to be exported.
    """

    table: TrialTable
    trainer: Trainer
    weights: Weights
    timing: Timing | None
    others: int

    def exported(self, variant: str, found: Best, chosen: Usable) -> TunedVariant:
        """The variant's outcome, with its test score and its adapter, of the best seed that is left."""
        if not chosen.left:
            return replace(found, notes=chosen.notes)
        trainer, exported = self.trainer, self.weights.exported
        adapter = str(exported / variant)
        kept = self.weights.kept(variant, chosen.runs)
        if kept is not None:
            return replace(found, test=kept.get("test"), adapter_dir=adapter, notes=tuple(kept.get("notes", ())))
        last = len(self.table.rungs) - 1
        trial = min(chosen.left, key=lambda trial: self.table.sign * trial.scores[last])
        _, unexported = _within_memory(lambda: trainer.export(trial.number, exported / variant))
        late = self._late(variant, len(chosen.left), exported.parent)
        test, untested = (None, "") if late else _within_memory(lambda: _tested(trainer, chosen.left))
        missing = (*_missing({"the test score": untested, "the adapter": unexported}, exported.parent), *late)
        fits = () if unexported else trainer.fits()
        notes = (*chosen.notes, *fits, *missing)
        tuned = replace(found, test=test, adapter_dir="" if unexported else adapter, notes=notes)
        if not unexported:
            self.weights.record(variant, tuned)
        return tuned

    def _late(self, variant: str, seeds: int, folder: Path) -> tuple[str, ...]:
        """A note if time is too short for the test; none if it is not."""
        timing = self.timing
        if timing is None or not timing.test_cost:
            return ()
        if seeds * timing.test(variant) + self.others * timing.export() <= timing.clock.left():
            return ()
        return (
            "the test score is missing, as time_budget left no time for it. "
            f"`autolora finish {files.argument(folder)}` computes it",
        )


def _tested(trainer: Trainer, runs: Sequence[Trial]) -> float | None:
    """Mean score of some trials on the test split; None if there is no such split."""
    scores = [trainer.test(trial.number) for trial in runs]
    known = [score for score in scores if score is not None]
    return fmean(known) if known else None


def _within_memory(act: Callable[[], T]) -> tuple[T | None, str]:
    """What a function returns, and an empty text; if memory runs out, None and what was said of it: the study is over,
    and the rest of it stays.
    """
    try:
        return act(), ""
    except (RuntimeError, MemoryError, OSError) as error:
        if not out_of_memory(error):
            raise
        said = first_line(error)[:200].rstrip(".")
    collected()  # the error is no longer held, whose frames hold what did not fit
    return None, said


def _missing(reasons: Mapping[str, str], folder: Path) -> tuple[str, ...]:
    """A note on what is missing, as memory ran out; none if nothing is."""
    lost = [what for what, reason in reasons.items() if reason]
    if not lost:
        return ()
    reason = next(filter(None, reasons.values()))
    verb = "is" if len(lost) == 1 else "are"
    return (
        f"{' and '.join(lost)} {verb} missing, as memory ran out ({reason}). `autolora finish {files.shown(folder)}` "
        "tries again",
    )
