"""The public entry: one call from a specification to tuned adapters."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from autolora import files, variants
from autolora import spec as specs
from autolora.bases.given import as_given
from autolora.driver import conclusion
from autolora.driver.alone import alone
from autolora.driver.callbacks import Callback, Callbacks
from autolora.driver.clock import Clock
from autolora.driver.directory import record, run_directory
from autolora.driver.former_trials import examples_in_an_uncut_run
from autolora.driver.litter import sweep
from autolora.driver.loop import Loop, interruptible
from autolora.driver.opening import Opening
from autolora.driver.paces import Paces
from autolora.driver.records import recorded_to_spec
from autolora.driver.result import BEST_FOLDER, TuneResult
from autolora.driver.timing import CLOSING, TimeUp, Timing
from autolora.driver.weights import Weights
from autolora.execution import Executor, make_executor
from autolora.search import Search
from autolora.spec import Spec
from autolora.study.directory import NoStudyError, begun_study
from autolora.trainers import Interrupted, Trainer, checkpoint
from autolora.trainers.places import Location

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel

    from autolora.tasks.causal_lm.spec import DataSpec


def tune(
    model: str | PreTrainedModel | None = None,
    data: str | Path | Dataset | Mapping[str, object] | DataSpec | None = None,
    *,
    spec: str | Path | Mapping[str, object] | Spec | None = None,
    dir: str | Path = "runs/autolora",
    executor: str | Executor = "inline",
    callbacks: Iterable[Callback] = (),
    began: float | None = None,
    **settings: object,
) -> TuneResult:
    """Tune LoRA variants: search, confirm, export.

    Args:
        model: path, hub id or loaded causal language model.
        data: path, hub id, ``datasets.Dataset``, or a mapping with the keys of
            :class:`autolora.tasks.causal_lm.spec.DataSpec`.
        spec: a YAML file, a mapping or a Spec instead of, or underneath, the other arguments.
        dir: run directory; one that holds an unfinished study of the same specification is continued.
        executor: "inline" for this process, "ray" for a Ray cluster, or an :class:`autolora.execution.Executor`.
        callbacks: told what happens while it runs, see :class:`autolora.Callback`; none: nothing is shown.
        began: when the time that a ``time_budget`` counts began, by ``time.monotonic``; None means now.
        settings: any other key of :class:`autolora.spec.Spec`, such as ``variants``, ``budget``, ``space``.

    Returns:
        The tuned configuration, scores and adapter folder of every variant.

    Raises:
        TypeError: something in ``callbacks`` is not an instance of :class:`autolora.Callback`.
        SpecError: the specification is wrong.
        ClusterError: with executor "ray", the cluster cannot be reached or has no room; before anything is loaded.
        RunDirectoryError: another process works in ``dir``, or it holds a study of another specification.
        StudyInUseError: another process writes the study in ``storage``.
        ProcessInUseError: this process tunes already.
        KeyboardInterrupt: Ctrl-C; completed work is saved, and the same call continues.
    """
    named = _given(model=model, data=data)
    if isinstance(spec, Spec):
        spec = {name: getattr(spec, name) for name in Spec.model_fields}
    told = Callbacks(callbacks)
    with told.stopping():
        began = time.monotonic() if began is None else began
        return _run(specs.load(spec, **named, **settings), files.expanded(dir), executor, told, began)


def resume(
    dir: str | Path,
    *,
    model: PreTrainedModel | None = None,
    data: Dataset | Mapping[str, object] | None = None,
    budget: float | None = None,
    time_budget: float | str | None = None,
    executor: str | Executor = "inline",
    callbacks: Iterable[Callback] = (),
    began: float | None = None,
) -> TuneResult:
    """Go on with the study of a run directory, from its recorded specification and from any working directory.

    Args:
        dir: run directory.
        model, data: again, where they were given as Python objects, which are not recorded.
        budget: full-run equivalents per variant in total, in place of the recorded one.
        time_budget: likewise the time that the study may take in all, such as "4h".
        executor, callbacks, began: as for :func:`tune`.

    Returns:
        As :func:`tune`.

    Raises:
        NoStudyError: the folder is not a run directory.
        RecordError: model or data were given as Python objects, and are not given again.
        SpecError, RunDirectoryError, StudyInUseError, ProcessInUseError, KeyboardInterrupt: as for :func:`tune`.
    """
    told = Callbacks(callbacks)
    with told.stopping():
        began = time.monotonic() if began is None else began
        folder = files.expanded(dir)
        spec = recorded_to_spec(folder, _given(model=model, data=data, budget=budget, time_budget=time_budget))
        return _run(spec, folder, executor, told, began)


def finish(
    dir: str | Path,
    *,
    model: PreTrainedModel | None = None,
    data: Dataset | Mapping[str, object] | None = None,
    callbacks: Iterable[Callback] = (),
) -> TuneResult:
    """Conclude the study of a run directory now, with what has been trained: test scores, adapters, ``best.json``.

    Nothing is trained, and nothing is given up: :func:`resume` goes on with the study afterwards.

    Args:
        dir: run directory.
        model, data: as for :func:`resume`.
        callbacks: as for :func:`tune`.

    Returns:
        As :func:`tune`; variants without a full run are not in it.

    Raises:
        NoStudyError: the folder is not a run directory, or holds no study yet.
        RecordError, SpecError, RunDirectoryError, StudyInUseError, ProcessInUseError: as for :func:`resume`.
    """
    told = Callbacks(callbacks)
    with told.stopping():
        folder = files.expanded(dir)
        spec = recorded_to_spec(folder, _given(model=model, data=data))
        if begun_study(spec.storage, folder) is None:
            raise NoStudyError(f"{files.shown(folder)} holds no study yet: there is nothing to finish")
        return _run(spec, folder, None, told, time.monotonic())


def _given(**arguments: object) -> dict[str, object]:
    return {name: value for name, value in arguments.items() if value is not None}


def _run(asked: Spec, folder: Path, choice: str | Executor | None, callbacks: Callback, began: float) -> TuneResult:
    """Search, if there is an executor, and conclude."""
    with alone(folder), as_given(asked.model), run_directory(folder, asked) as spec:
        clock = Clock(folder, None if choice is None else spec.time_limit, began=began)
        with clock.running():
            executor = make_executor(choice, spec, folder) if isinstance(choice, str) else choice
            with nullcontext() if executor is None else closing(executor):
                return _on_held_directory(spec, folder, executor, callbacks, clock)


def _on_held_directory(
    spec: Spec, folder: Path, executor: Executor | None, callbacks: Callback, clock: Clock
) -> TuneResult:
    began = time.monotonic()
    sweep(spec, folder, alone=executor is None or executor.in_process)
    if executor is not None:
        callbacks.on_executor(executor)
    opening = Opening.of(spec, folder)
    spec = opening.spec
    trainer, loaded = opening.trainer, time.monotonic()
    callbacks.on_setup(spec, trainer)
    prior = opening.prior(folder, callbacks.on_prior)
    search = opening.search(prior, opening.recorder(folder))
    with closing(search):
        record(folder, spec)  # what was refused so far, as for the terms of the study, changes nothing
        checkpoints = checkpoint.root_of(spec.checkpoints, folder)
        for warning in (*_about_earlier_versions(search, checkpoints, folder), *_about_new_metrics(search, spec)):
            warnings.warn(warning, stacklevel=2)
        callbacks.on_search_start(search)
        weights = Weights(trainer, folder / BEST_FOLDER)
        loop = Loop(search, spec.keep, checkpoints, callbacks, weights)
        if executor is not None and clock.limit is not None:
            loop.timing = Timing(
                clock=clock,
                variants=search.plan.variants,
                paces=Paces(search.table, trainer.scored_rows(), _step_costs(search), clock.now),
                in_process=executor.in_process,
                loading=loaded - began,
                test_cost=trainer.test_cost(),
            )
        if executor is not None:
            _search(loop, executor, trainer)
        result = conclusion.conclude(loop, trainer, spec, folder, began)
    callbacks.on_finish(result)
    return result


def _search(loop: Loop, executor: Executor, trainer: Trainer) -> None:
    with interruptible() as asked_to_stop:
        try:
            executor.start(trainer)
            loop.run(executor, asked_to_stop)
        except TimeUp:
            executor.hurry(CLOSING)  # what there is, is concluded
        except Interrupted:
            raise KeyboardInterrupt from None
        finally:
            executor.close()


def _step_costs(search: Search) -> dict[str, float]:
    """Time of a step over that of plain LoRA, of the variants of which it is known."""
    costs = {name: variants.get(name).cost for name in search.plan.variants}
    return {name: cost for name, cost in costs.items() if cost}


def _about_new_metrics(search: Search, spec: Spec) -> Iterator[str]:
    """What is to be said of metrics that trials lack, as these were trained before the metrics were asked for."""
    last = search.plan.last
    complete = [trial for name in search.plan.variants for trial in search.table.complete(name)]
    counts = {name: sum(name not in trial.metrics.get(last, {}) for trial in complete) for name in spec.reported}
    lacking = {name: count for name, count in counts.items() if count}
    if lacking:
        said = ", ".join(f"{name} by {count}" for name, count in lacking.items())
        yield (
            f"metrics: not reported of {len(complete)} full runs so far: {said}. They stay as they are, and the Pareto "
            "front leaves them out"
        )


def _about_earlier_versions(search: Search, checkpoints: Location, folder: Path) -> Iterator[str]:
    """What is to be said of trials that an earlier version has trained in another way."""
    shown = files.shown(folder)
    if search.outdated:
        names = " and ".join(search.outdated)
        yield (
            f"{shown} holds trials of {names} by an earlier version, which trained them in another way. They are not "
            "continued, and stay as they are with what was exported; the other variants go on. Tune "
            f"{names} in a new directory"
        )
    most, examples = examples_in_an_uncut_run(search.table, checkpoints), search.table.examples or 0
    if most > examples:
        yield (
            f"{shown} holds trials by an earlier version, which filled up the last batch: full runs of up to {most} "
            f"examples in place of {examples}. They stay as they are, and trials from now on are cut, so scores of "
            "batch sizes that do not divide the run may differ by that"
        )
