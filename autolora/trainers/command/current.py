"""What ``autolora.current_trial()`` gives to a script that a command of a specification runs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autolora import files, references
from autolora import spec as specs
from autolora.search import Job
from autolora.space import Config
from autolora.spec import Spec
from autolora.trainers.command.errors import NoTrialError
from autolora.trainers.command.process import REPORT, TRIAL
from autolora.trainers.trial import Trial

UNTOLD = ("data", "prior", "storage", "checkpoints")
"""Keys of a specification that a command is not told: it has data of its own, and no use for the others."""


@dataclass(frozen=True)
class ReportingTrial(Trial):
    """The trial that this process trains, see :class:`autolora.trainers.trial.Trial`."""

    _report: Path = field(default=Path(), repr=False)

    def report(self, **values: Any) -> None:
        """Tell autolora what has been trained, or the score. Of the processes of a trial rank 0 does, by the variable
        RANK; in the others nothing happens, so that all may call it. What is reported is rank 0's: average it over the
        processes before.

        Args:
            values: numbers by name. While it trains ``step``, optimizer steps taken, with ``loss``, the mean training
                loss since the report before, in nats, and where they are known ``examples``, seen so far, and
                ``grad_norm``. At the end the score under the metric's name, such as ``eval_loss``; the last one
                reported counts.

        Raises:
            TypeError, ValueError: one of them is not a number.
        """
        line = json.dumps({name: _plain(value) for name, value in values.items()}) + "\n"
        if _number("RANK", 0) != 0:
            return
        # Written at once to the end of the file: a line is whole, whoever else reports.
        descriptor = os.open(self._report, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    @property
    def processes(self) -> int:
        """How many processes train this trial together, by the variable WORLD_SIZE that launchers set."""
        return _number("WORLD_SIZE", 1)

    @property
    def local_batch_size(self) -> int:
        """Examples of an optimizer step that are this process's: the batch size is that of all processes together.

        Raises:
            NoTrialError: the processes cannot share a batch evenly.
        """
        batch, processes = int(self.config["batch_size"]), self.processes
        if batch % processes:
            raise NoTrialError(
                f"batch_size {batch} cannot be shared by {processes} processes: set space.batch_size to multiples of "
                f"{processes}, such as [{processes}, {2 * processes}]"
            )
        return batch // processes

    def arguments(self, micro_batch: int | None = None) -> dict[str, Any]:
        """As :meth:`Trial.arguments`, of one of several processes: each takes its share of a batch.

        Raises:
            NoTrialError: the processes cannot share a batch evenly.
        """
        found = super().arguments(micro_batch)
        local = self.local_batch_size
        most = min(int(found["per_device_train_batch_size"]), local)
        micro = max(size for size in range(1, most + 1) if local % size == 0)
        return {**found, "per_device_train_batch_size": micro, "gradient_accumulation_steps": local // micro}

    def _load(self) -> Any:
        """The base on the device of this process: of several on a machine, each has one of its own."""
        from autolora import bases

        if self.processes == 1 or self._spec.model is None:
            return super()._load()
        import torch

        alone = self._spec.model_copy(
            update={"resources": self._spec.resources.model_copy(update={"gpu": None, "nodes": 1})}
        )
        if torch.cuda.is_available() and alone.training.device == "auto":
            device = f"cuda:{_number('LOCAL_RANK', 0) % torch.cuda.device_count()}"
            alone = alone.model_copy(update={"training": alone.training.model_copy(update={"device": device})})
        base = bases.load(alone)
        return base.model, base.tokenizer


def _number(variable: str, otherwise: int) -> int:
    """What a launcher has set, as a number."""
    value = os.environ.get(variable, "")
    return int(value) if value.isdecimal() else otherwise


def _plain(value: Any) -> int | float:
    return value if isinstance(value, int) and not isinstance(value, bool) else float(value)


def current_trial() -> ReportingTrial:
    """The trial that this process trains: its settings, its folder, where it is to stop, and ``report``.

    Raises:
        NoTrialError: no ``trainer: {command: ...}`` of a specification has started this process.
    """
    path = os.environ.get(TRIAL)
    if not path:
        raise NoTrialError(
            "autolora.current_trial() gives a training script the trial that it is run for, and this process is not "
            f"run for one: {TRIAL} is not set. Name the script in a specification, as in `trainer: {{command: python "
            "train.py, examples: 20000}`, and run `autolora tune`"
        )
    try:
        told = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NoTrialError(f"{TRIAL} names {files.shown(path)}, which cannot be read: {error}") from None
    references.importable_from(told[specs.IMPORTED_FROM])
    job = Job(**{**told["job"], "config": Config.of(**told["job"]["config"])})
    trial = ReportingTrial.of(specs.validate(told["specification"]), job, Path(told["folder"]), told["examples"])
    assert isinstance(trial, ReportingTrial)
    return replace(trial, _report=Path(os.environ[REPORT]))


def told(trial: Trial, spec: Spec, job: Job, study: str) -> Mapping[str, Any]:
    """What a command is told of its trial, as JSON.

    Args:
        trial: of the job.
        spec: of the study.
        job: the segment.
        study: digest of what training depends on beside the trial.
    """
    return {
        "trial": trial.number,
        "variant": trial.variant,
        "seed": trial.seed,
        "config": dict(trial.config),
        "folder": os.fspath(trial.folder),
        "start": trial.start,
        "stop": trial.stop,
        "stop_examples": trial.stop_examples,
        "stop_steps": trial.stop_steps,
        "steps": trial.steps,
        "rung": trial.rung,
        "examples": trial.examples,
        "metric": spec.metric.name,
        "study": study,
        "job": {**vars(job), "config": job.config.as_dict()},
        "specification": specs.dump(spec.model_copy(update=dict.fromkeys(UNTOLD))),
        specs.IMPORTED_FROM: references.folders_of(spec.references),
    }
