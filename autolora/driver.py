"""The loop: study, policy and executor to a TuneResult. The only place that knows all three."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from autolora import spec as specs
from autolora.assembly import (
    SPEC_FILE,
    STUDY_FILE,
    begun_study,
    check_variants,
    open_search,
    resolved_space,
    storage_url,
)
from autolora.errors import AutoloraError
from autolora.execution import EXECUTORS, Executor, ExecutorName, LostWorker
from autolora.priors import Prior
from autolora.report import Reporter, Silent
from autolora.result import BEST_FOLDER, TunedVariant, TuneResult, installed_versions
from autolora.scouting import scout
from autolora.search import WAIT, Job, Search
from autolora.search.judgement import judge
from autolora.search.verdict import best as best_of
from autolora.search.verdict import complete_trials, spare
from autolora.space import Space
from autolora.spec import Spec
from autolora.training import checkpoint
from autolora.training.segment import Interrupted, Outcome, Progress, Segment
from autolora.training.workbench import Workbench

LOCK_FILE = ".lock"
LOST_IN_A_ROW = 10
"""Workers that a trial may lose without getting further before it counts as infeasible; or the cluster as broken, where
nothing has come back from it."""


class WorkersError(AutoloraError, RuntimeError):
    """Workers are lost again and again."""


class RunDirectoryError(AutoloraError, RuntimeError):
    """The run directory is in use, or belongs to another specification."""


def tune(
    model: Any = None,
    data: Any = None,
    *,
    spec: str | Path | Mapping[str, Any] | Spec | None = None,
    dir: str | Path = "runs/autolora",
    executor: ExecutorName | Executor = "inline",
    reporter: Reporter | None = None,
    **settings: Any,
) -> TuneResult:
    """Tune LoRA variants: search, confirm, export.

    Args:
        model: path, hub id or loaded causal language model.
        data: path, hub id, ``datasets.Dataset``, or a mapping with the keys of :class:`autolora.spec.DataSpec`.
        spec: a YAML file, a mapping or a Spec instead of, or underneath, the other arguments.
        dir: run directory; one that holds an unfinished study of the same specification is continued.
        executor: "inline" for this process, "ray" for a Ray cluster, or an :class:`autolora.execution.Executor`.
        reporter: what is shown while it runs; None: nothing.
        settings: any other key of :class:`autolora.spec.Spec`, such as ``variants``, ``budget``, ``space``.

    Returns:
        The tuned configuration, scores and adapter folder of every variant.

    Raises:
        SpecError: the specification is wrong.
        RunDirectoryError: another process works in ``dir``, or it holds a study of another specification.
        StudyInUseError: another process writes the study in ``storage``.
        KeyboardInterrupt: Ctrl-C; everything done so far is kept, and the same call continues.
    """
    named = {key: value for key, value in {"model": model, "data": data}.items() if value is not None}
    if isinstance(spec, Spec):
        spec = {name: getattr(spec, name) for name in Spec.model_fields}
    checked = specs.load(spec, **named, **settings)
    with run_directory(Path(dir), checked) as folder:
        return _Driver(checked, folder, executor, reporter or Silent()).run()


@contextmanager
def run_directory(folder: Path, spec: Spec) -> Iterator[Path]:
    """Hold the directory for this process and this specification."""
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        _adopt(folder, spec)
        yield folder


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """An operating-system lock: gone when the process dies, and not inherited by its children."""
    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 64).decode(errors="replace").strip() or "unknown"
            raise RunDirectoryError(
                f"{folder} is in use by another process (pid {owner}): wait for it, stop it, or choose another --dir"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _adopt(folder: Path, spec: Spec) -> None:
    """Record the specification, or check it against the recorded one; only what MUTABLE names may differ."""
    path = folder / SPEC_FILE
    recorded = specs.read_recorded(path) if path.is_file() else None
    # Until there is a study, a specification that turned out wrong may be corrected.
    if recorded is not None and (recorded.get("storage") or (folder / STUDY_FILE).is_file()):
        changes = specs.differences(recorded, specs.dump(spec))
        if changes:
            raise RunDirectoryError(
                f"{folder} holds a study of another specification (recorded -> asked for):\n  "
                + "\n  ".join(changes)
                + "\nUse another --dir for the new one; a larger budget alone continues the study."
            )
    beside = path.with_suffix(".tmp")
    specs.save(spec, beside)
    os.replace(beside, path)


@dataclass
class _Driver:
    """One call of :func:`tune` on a held run directory."""

    spec: Spec
    folder: Path
    executor_choice: ExecutorName | Executor
    reporter: Reporter
    seconds: dict[str, float] = field(default_factory=lambda: {"total": 0.0, "training": 0.0, "driver": 0.0})
    losses: Counter[int] = field(default_factory=Counter)
    """Workers that each trial has lost without getting further."""
    furthest: dict[int, int] = field(default_factory=dict)
    """Optimiser steps that each trial was seen to have taken."""
    returned: int = 0
    """Segments that have come back."""
    removed: set[int] = field(default_factory=set)
    """Trials whose checkpoints or weights have been removed."""

    def run(self) -> TuneResult:
        began = time.monotonic()
        self.bench = Workbench.open(self.spec, self.folder)
        space = resolved_space(self.spec)
        check_variants(self.spec, space, self.bench.base.model)
        self.reporter.prepared(self.spec, self.bench)
        storage = storage_url(self.spec.storage, self.folder)
        search = open_search(
            self.spec, space, self.bench.examples, self._prior(space), storage, self.bench.fingerprints()
        )
        with closing(search):
            self.reporter.resumed(search)
            choice = self.executor_choice
            executor = EXECUTORS[choice](self.spec, self.bench) if isinstance(choice, str) else choice
            aside = nullcontext() if choice == "inline" else self.bench.set_aside()
            with _interruptible() as asked_to_stop, aside:
                try:
                    self._search(search, executor, asked_to_stop)
                except Interrupted:
                    raise KeyboardInterrupt from None
                finally:
                    executor.close()
            result = self._conclude(search, began)
        self.reporter.finished(result)
        return result

    def _prior(self, space: Space) -> Prior | None:
        """The prior that the study was started with, or a new one where it has not begun."""
        study = begun_study(self.spec, self.folder)
        if study is not None:
            return study.prior
        scouted = scout(self.spec, space, self.bench)
        self.reporter.scouted(scouted)
        return scouted.prior

    def _search(self, search: Search, executor: Executor, asked_to_stop: Callable[[], bool]) -> None:
        jobs: dict[int, Job] = {}

        def on_step(progress: Progress) -> None:
            if progress.step > self.furthest.get(progress.trial, 0):
                self.furthest[progress.trial] = progress.step
                self.losses.pop(progress.trial, None)
            self.reporter.progress(progress)
            if asked_to_stop():
                raise Interrupted

        while True:
            mark = time.monotonic()
            while len(jobs) < executor.capacity and not asked_to_stop():
                job = search.ask()
                if job is None or job is WAIT:
                    break
                assert isinstance(job, Job)
                jobs[job.trial] = job
                self.reporter.started(search, job)
                executor.submit((Segment(job.trial, job.variant, job.config, job.seed, job.stop, job.rung),))
            self.seconds["driver"] += time.monotonic() - mark
            if asked_to_stop():
                raise Interrupted
            if not jobs:
                return
            mark = time.monotonic()
            outcomes = executor.wait(on_step)
            self.seconds["training"] += time.monotonic() - mark
            mark = time.monotonic()
            for outcome in outcomes:
                self._tell(search, jobs, outcome)
            self._tidy(search)
            self.seconds["driver"] += time.monotonic() - mark

    def _tidy(self, search: Search) -> None:
        """Remove once what no longer serves: checkpoints of discarded trials, weights of completed ones past `keep`."""
        for trial in set(search.discarded()) - self.removed:
            checkpoint.discard(self.bench.trial_folder(trial))
            self.removed.add(trial)
        for trial in set(spare(search.table, search.plan, self.spec.keep)) - self.removed:
            checkpoint.shed(self.bench.trial_folder(trial))
            self.removed.add(trial)

    def _tell(self, search: Search, jobs: dict[int, Job], outcome: Outcome | LostWorker) -> None:
        if isinstance(outcome, LostWorker):
            for trial in outcome.trials:
                self._tell_lost(search, jobs.pop(trial), outcome)
            return
        self.returned += 1
        self.losses.pop(outcome.trial, None)
        job = jobs.pop(outcome.trial)
        if outcome.kind == "scored":
            search.tell(job, outcome.value, seconds=outcome.seconds)
        else:
            search.tell(
                job,
                diverged=outcome.kind == "diverged",
                infeasible=outcome.kind == "infeasible",
                at=outcome.at,
                reason=outcome.reason,
                seconds=outcome.seconds,
            )
        self.reporter.told(search, job, outcome)

    def _tell_lost(self, search: Search, job: Job, lost: LostWorker) -> None:
        self.losses[job.trial] += 1
        if self.losses[job.trial] < LOST_IN_A_ROW:
            search.tell(job, lost=True)
        elif not self.returned:
            raise WorkersError(
                f"no segment comes back: {LOST_IN_A_ROW} workers were lost with trial {job.trial} alone, the last "
                f"since {lost.reason}. What was done is kept; once the cluster is mended the same command "
                "goes on"
            )
        else:
            reason = f"{LOST_IN_A_ROW} workers were lost with it before it got further, the last since {lost.reason}"
            search.tell(job, infeasible=True, at=job.start, reason=reason)
        self.reporter.told(search, job, lost)

    def _conclude(self, search: Search, began: float) -> TuneResult:
        """Score the test split, export the adapters, write best.json."""
        self.removed.clear()  # once more, for what workers wrote that had been given up
        self._tidy(search)
        tuned = {}
        examples = checkpoint.example_scores(
            self.bench.checkpoints, complete_trials(search.table, search.plan.variants)
        )
        found = best_of(search.table, search.plan.variants, examples)
        for name, best in found.items():
            self.reporter.concluding(name)
            order = min if search.direction == "minimize" else max
            chosen = best.trials[best.seeds.index(order(best.seeds))]
            test = None
            if self.bench.data.test is not None:
                test = fmean(self._test_score(trial) for trial in best.trials)
            adapter = self.folder / BEST_FOLDER / name
            with self.bench.trained(chosen) as adapted:
                self.bench.variant(name, best.config).export(adapted, adapter)
            seconds = sum(trial.seconds for trial in search.table.of(name))
            tuned[name] = TunedVariant(
                best.config,
                best.value,
                best.spread,
                best.seeds,
                best.baseline,
                test,
                str(adapter),
                seconds,
                best.run_seconds,
                best.noise,
                best.smallest,
                best.cheapest,
            )
            (adapter / "autolora.yaml").write_text(yaml.safe_dump(tuned[name].as_dict(), sort_keys=False))
        self.seconds["total"] = time.monotonic() - began
        result = TuneResult(
            tuned,
            search.spent,
            installed_versions(),
            self.spec.metric.name,
            search.direction,
            self.folder,
            dict(self.seconds),
            judge(search.table, found, examples),
        )
        result.save()
        return result

    def _test_score(self, trial: int) -> float:
        assert self.bench.data.test is not None
        with self.bench.trained(trial) as adapted:
            return self.bench.evaluate(adapted, self.bench.data.test)


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C or SIGTERM into a request that is honoured at the next optimiser step.

    A second one interrupts at once. Outside the main thread signals stay as they are.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked = threading.Event()

    def ask(signum: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    previous = {signum: signal.signal(signum, ask) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
