"""The public entry: one call from a specification to tuned adapters."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from autolora import files
from autolora import spec as specs
from autolora.driver import conclusion
from autolora.driver.callbacks import Callback, Callbacks
from autolora.driver.directory import run_directory
from autolora.driver.loop import Loop, interruptible
from autolora.driver.opening import Opening
from autolora.driver.result import TuneResult
from autolora.execution import Executor, make_executor
from autolora.spec import Spec
from autolora.trainers import Interrupted, checkpoint

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
        settings: any other key of :class:`autolora.spec.Spec`, such as ``variants``, ``budget``, ``space``.

    Returns:
        The tuned configuration, scores and adapter folder of every variant.

    Raises:
        TypeError: something in ``callbacks`` is not an instance of :class:`autolora.Callback`.
        SpecError: the specification is wrong.
        RunDirectoryError: another process works in ``dir``, or it holds a study of another specification.
        StudyInUseError: another process writes the study in ``storage``.
        KeyboardInterrupt: Ctrl-C; completed work is saved, and the same call continues.
    """
    named = {key: value for key, value in {"model": model, "data": data}.items() if value is not None}
    if isinstance(spec, Spec):
        spec = {name: getattr(spec, name) for name in Spec.model_fields}
    told = Callbacks(callbacks)
    with told.stopping():
        checked = specs.load(spec, **named, **settings)
        folder = files.expanded(dir)
        with run_directory(folder, checked) as adopted:
            return _run(adopted, folder, executor, told)


def _run(spec: Spec, folder: Path, choice: str | Executor, callbacks: Callback) -> TuneResult:
    """One call of :func:`tune` on a held run directory."""
    began = time.monotonic()
    opening = Opening.of(spec, folder)
    trainer = opening.trainer
    callbacks.on_setup(spec, trainer)
    prior = opening.prior(folder, callbacks.on_prior)
    search = opening.search(prior, opening.recorder(folder))
    with closing(search):
        if search.outdated:
            warnings.warn(_about_outdated(search.outdated, folder), stacklevel=2)
        callbacks.on_search_start(search)
        loop = Loop(search, spec.keep, checkpoint.root_of(spec.checkpoints, folder), callbacks)
        executor = make_executor(choice, spec, folder, trainer) if isinstance(choice, str) else choice
        aside = nullcontext() if choice == "inline" else trainer.set_aside()
        with interruptible() as asked_to_stop, aside:
            try:
                loop.run(executor, asked_to_stop)
            except Interrupted:
                raise KeyboardInterrupt from None
            finally:
                executor.close()
        result = conclusion.conclude(loop, trainer, spec, folder, began)
    callbacks.on_finish(result)
    return result


def _about_outdated(outdated: Sequence[str], folder: Path) -> str:
    names = " and ".join(outdated)
    return (
        f"{folder} holds trials of {names} by an earlier version, which trained them in another way. They are not "
        f"continued, and stay as they are with what was exported; the other variants go on. Tune {names} in a new "
        "directory"
    )
