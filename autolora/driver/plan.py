"""What a study would do, without doing it: data, spending, first configurations, and an estimate of what it costs.

Time and memory are measured over a few real optimizer steps of the largest configuration. Memory is planned besides,
before anything is tried.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median

from autolora import variants
from autolora.adapters.memory import Memory
from autolora.adapters.store import size_of
from autolora.driver.directory import adopted
from autolora.driver.opening import Opening
from autolora.errors import AutoloraError
from autolora.search import Job
from autolora.search.policy import FINALISTS, PAUSED, Plan
from autolora.search.trials import Sampled
from autolora.space import Space, searchable
from autolora.spec import Spec
from autolora.trainers import Trainer, checkpoint, horizon
from autolora.trainers.builtin.workbench import FACTORS
from autolora.trainers.places import place

PROBE_STEPS = 4
"""Optimizer steps that are timed; the first, which also allocates, is left out."""
PROBE_RATE = 1e-6
KEYS = {
    "checkpointing": "training.gradient_checkpointing: true",
    "rows": "training.micro_batch: 1",
    "dtype": "training.dtype: bfloat16",
    "bits": "base.load_in_4bit: true",
}
"""Keys of the specification by the fields of a memory plan's setting."""
ROOM = 1.1
"""Disk is stated with a tenth to spare."""


class PlanError(AutoloraError):
    """The largest configuration cannot be trained here."""


@dataclass(frozen=True)
class DryRun:
    """The plan of a study.

    Attributes:
        notes: what model and data are, which layers are adapted, and what the prior took, line by line.
        spending: per variant, what its budget buys, in words.
        first: the first trials, each with the reason for it.
        seconds_per_run: of one full run of the largest configuration, evaluation included. It and the next four are
            None where the trainer cannot train a few steps to tell.
        evaluation_share: of that, what the evaluations at all rungs take.
        seconds: of the whole study.
        memory_bytes: peak of the process (CPU) or of the device, while training; None on a CPU whose platform does not
            tell, such as Windows.
        disk_bytes: of checkpoints, exported adapters and the factorizations that variants start from.
        memory: the plan of the largest setting; None if the trainer has none.
        time: whether the budget or the time budget ends the study; empty without one, or if that is not known.
    """

    notes: Sequence[str]
    spending: str
    first: Sequence[Sampled]
    seconds_per_run: float | None
    evaluation_share: float | None
    seconds: float | None
    memory_bytes: int | None
    disk_bytes: int | None
    memory: Memory | None = None
    time: str = ""


def saving_keys(memory: Memory) -> str:
    """Keys of the specification that make a plan smaller, those that are set already left out: a sentence."""
    changed = {field for remedy in memory.remedies for field in remedy.fields}
    keys = [words for field, words in KEYS.items() if field in changed]
    return (
        f"Less is taken with {', '.join([*keys, 'or ' * bool(keys) + 'a smaller training.max_length or space.rank'])}."
    )


def dry_run(
    spec: Spec, folder: Path, preview: int = 6, on_memory: Callable[[Memory], None] = lambda plan: None
) -> DryRun:
    """Load model and data, train a few steps in a temporary folder, and say what a study in ``folder`` would do.

    Args:
        spec: of the study.
        folder: its run directory.
        preview: most trials that are shown.
        on_memory: called with the memory plan before anything is trained.

    Raises:
        PlanError: the largest configuration cannot be trained here.
    """
    spec = adopted(folder, spec)
    place(checkpoint.root_of(spec.checkpoints, folder))  # one that nothing serves is an error here, too
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        # The probes' checkpoints are not for the study's workers to find.
        opening = Opening.of(spec.model_copy(update={"checkpoints": None}), scratch, study_in=folder)
        trainer, space = opening.trainer, opening.space
        notes = [f"{subject}: {line}" for subject, lines in trainer.about().items() for line in lines]
        memory = trainer.memory_plan(spec.names, space)
        if memory is not None:
            on_memory(memory)
        prior = opening.prior(folder, lambda scouted: notes.extend(scouted.notes))
        search = opening.search(prior)
        untimed = DryRun(
            notes=notes,
            spending=_spending(spec, search.plan, search.table.upfront),
            first=search.preview(max(preview, len(spec.names) + 3)),
            seconds_per_run=None,
            evaluation_share=None,
            seconds=None,
            memory_bytes=None,
            disk_bytes=None,
            memory=memory,
        )
        if not trainer.can_be_timed():
            return untimed
        seconds_per_run, evaluation_share, checkpoint_bytes = _measure(trainer, scratch, spec, space, memory)
        kept = PAUSED * len(spec.names) + max(len(spec.names), spec.resources.workers or 1)  # being trained
        complete = min(math.floor(spec.budget), spec.keep + FINALISTS + search.plan.confirm)
        finished = (complete + 1) * len(spec.names)  # and the exported adapter
        factors = size_of(scratch / FACTORS)  # which the probes have left, all that a study will
        runs = (spec.budget - search.table.upfront) * len(spec.names)
        return replace(
            untimed,
            time=_binding(spec, seconds_per_run, runs),
            seconds_per_run=seconds_per_run,
            evaluation_share=evaluation_share,
            seconds=seconds_per_run * runs,
            memory_bytes=trainer.peak_memory(),
            disk_bytes=round(ROOM * checkpoint_bytes * (checkpoint.KEEP * kept + finished)) + factors,
        )


def _binding(spec: Spec, seconds: float, runs: float) -> str:
    """Whether the budget or the time budget ends the study, in words.

    Args:
        spec: of the study.
        seconds: of a full run.
        runs: full runs of all variants.
    """
    limit = spec.time_limit
    if limit is None or not seconds:
        return ""
    workers = spec.resources.workers or 1
    fit = workers * limit / seconds
    who = "one worker" if workers == 1 else f"{workers} workers"
    if fit >= runs:
        return f"time_budget: {limit:g} s is enough for the budget on {who}, which ends the study first."
    enough = math.ceil(runs * seconds / limit)
    each = fit / len(spec.names)
    if fit < 1 and seconds > limit:
        return f"time_budget: {limit:g} s ends the study first: it does not hold even one full run."
    return (
        f"time_budget: {limit:g} s ends the study first: {who} would get through about {each:.2g} of {spec.budget:g} "
        f"full runs of each variant, less what loading, tests and exports take; {enough} workers through all."
    )


def _spending(spec: Spec, plan: Plan, upfront: float) -> str:
    baseline, confirm = int(bool(plan.baselines)), plan.confirm
    left = spec.budget - baseline - confirm - upfront
    parts = [f"prior {upfront:.3f}"] if upfront else []
    if baseline:
        parts.append("baseline 1")
    if left >= 1:
        parts.append(f"search {left:.4g}")
    if confirm:
        parts.append(f"{confirm} further seeds of the finalists {confirm}")
    return f"{spec.budget:g} full runs: " + " + ".join(parts)


def _measure(
    trainer: Trainer, scratch: Path, spec: Spec, space: Space, memory: Memory | None
) -> tuple[float, float, int]:
    """For the largest configuration of the slowest variant: seconds of a full run, the share of them that evaluation
    takes, and bytes of a checkpoint.
    """
    rows = trainer.scored_rows()
    evaluations = sum(rows) / rows[-1] if rows else float(len(spec.rungs))
    measured = []
    for number, name in enumerate(spec.names):
        config = searchable.largest(space, variants.get(name)).replaced(learning_rate=PROBE_RATE)
        stop = min(1.0, PROBE_STEPS / horizon(trainer.examples, config.batch_size))
        # Scored as at the last rung: on all rows.
        last = len(spec.rungs) - 1
        probe = Job(trial=number, variant=name, config=config, seed=0, start=0.0, stop=stop, rung=last)
        measured.append(_time(trainer, scratch, probe, memory))
    training, evaluation = max(((training, evaluations * evaluation) for training, evaluation, _ in measured), key=sum)
    seconds = training + evaluation
    return seconds, evaluation / seconds if seconds else 0.0, max(size for *_, size in measured)


def _time(trainer: Trainer, scratch: Path, probe: Job, memory: Memory | None) -> tuple[float, float, int]:
    """Train a probe; seconds that the training of a full run of it and one evaluation would take, and bytes of its
    checkpoint.
    """
    marks: list[float] = []
    outcome = trainer.run(probe, lambda _: marks.append(time.monotonic()))
    if outcome.kind == "infeasible":
        planned = "" if memory is None else f". {' '.join(filter(None, (memory.verdict(), saving_keys(memory))))}"
        raise PlanError(
            f"{probe.variant} at batch {probe.config.batch_size}, rank {probe.config.rank}: {outcome.reason}{planned}"
        )
    evaluation = time.monotonic() - marks[-1]
    step = median(b - a for a, b in pairwise(marks)) if len(marks) > 1 else outcome.seconds
    files = Path(checkpoint.trial_folder(scratch, probe.trial)).rglob("*")
    size = sum(path.stat().st_size for path in files if path.is_file())
    return step * horizon(trainer.examples, probe.config.batch_size), evaluation, size
