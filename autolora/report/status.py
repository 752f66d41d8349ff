"""What `autolora status` and `autolora best` show of a run directory."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import RenderableType

from autolora.analysis.best import Best, best
from autolora.analysis.verdict import judge
from autolora.driver.former_trials import recall_rows
from autolora.driver.result import TuneResult
from autolora.files import Document
from autolora.report.summary import duration, summarize
from autolora.report.tables import result_table, status_table
from autolora.search.policy import Plan
from autolora.search.rungs import rows_in_words
from autolora.search.trials import TrialTable
from autolora.spec import register_variants
from autolora.study.directory import read_sampler, read_study, recorded_spec
from autolora.trainers.checkpoint import root_of
from autolora.variants import VariantError, registry


@dataclass(frozen=True)
class Status:
    """Where a study stands.

    Attributes:
        table: a row per variant.
        lines: what follows it: counts, and the verdict so far where there is one.
    """

    table: RenderableType
    lines: Sequence[str]


@dataclass(frozen=True)
class Finished:
    """The result of a study.

    Attributes:
        result: as in ``best.json``, perhaps of one variant.
        note: that the study has gone on since; None if it has not.
    """

    result: TuneResult
    note: str | None

    @property
    def table(self) -> RenderableType:
        """For people."""
        return result_table(self.result)

    @property
    def json(self) -> str:
        """For programs: the outcome by variant."""
        return json.dumps({name: tuned.as_dict() for name, tuned in self.result.items()}, indent=2)


def read_status(folder: Path) -> Status:
    """Where the study of a run directory stands, running or not. Needs neither its lock nor its checkpoints.

    Raises:
        NoStudyError: nothing was started there.
    """
    table, plan = read_study(folder)
    recorded = recorded_spec(folder)
    notes = _unknown_variants(recorded)
    recall_rows(table, plan, root_of(recorded.get("checkpoints"), folder))
    rows = [summarize(table, plan, variant) for variant in plan.variants]
    spent = duration(sum(row.seconds for row in rows))
    lines = [f"{len(table.trials)} trials, {spent} of training and evaluation"]
    lines += filter(None, [rows_in_words(table.rungs, table.scored_rows)])
    found = best(table, plan.variants)
    verdict = judge(table, found, registry.simple(plan.variants), _shortfalls(folder, table, plan, found))
    if verdict.differences:
        lines.append(f"so far: {verdict.text}")
    return Status(status_table(rows, plan.rungs), [*lines, *notes])


def _shortfalls(folder: Path, table: TrialTable, plan: Plan, found: Mapping[str, Best]) -> Mapping[str, float] | None:
    """How far behind their best the configurations may be; None where a variant is not known here."""
    if len(found) < 2 or not set(plan.variants) <= set(registry.names()):
        return None
    sampler = read_sampler(folder, {name: registry.get(name) for name in plan.variants})
    return sampler.shortfalls(table, {name: one.config for name, one in found.items()})


def _unknown_variants(recorded: Document) -> list[str]:
    """Register the variants of other packages; what is said of those that cannot be imported here."""
    try:
        register_variants(recorded)
    except VariantError as error:
        return [f"note: {error}; the verdict counts it as harder to use than plain LoRA"]
    return []


def read_best(folder: Path, variant: str | None = None) -> Finished:
    """The result of a finished study.

    Args:
        folder: run directory.
        variant: the only one wanted; None means all.

    Raises:
        ResultError: the study has never come to its end.
        NoVariantError: it has no finished run of the variant.
    """
    result = TuneResult.load(folder)
    table, _ = read_study(folder)
    note = None
    if result.scores is not None and table.scored > result.scores:
        note = "note: the study has gone on since this result; `autolora status` shows where it stands"
    if variant is not None:
        result = replace(result, variants={variant: result[variant]})
    return Finished(result, note)
