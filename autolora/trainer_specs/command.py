"""Any command line that trains."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from autolora import files
from autolora.trainer_specs.function import LOOP
from autolora.trainer_specs.trainer_spec import TrainerSpec, register

TRAINING = (*(f"training.{name}" for name in LOOP), "training.micro_batch", "training.checkpoint_seconds")
"""Keys that a command cannot be told."""
TOLD_BY_FILE = ("examples", "dropout", "device", "dtype")
"""Settings of ``training`` that a configuration file, or the section ``trainer``, says in its own way."""


class ProcessSpec(TrainerSpec):
    """What all trainers have that run in a process of their own.

    Args:
        examples: training examples of a full run.
        early_stop: whether the command stops where it is told to, and goes on from there when it is run again. False:
            every trial is trained to the end.
        cwd: folder that it is run in; None means the one of the first start, which a study keeps wherever it is
            started again.
    """

    ignores = ("data", "evaluation", *TRAINING)
    own_process = True

    examples: int = Field(ge=1, le=10**12)
    early_stop: bool = True
    cwd: str | None = Field(default=None, validate_default=True)

    @property
    def stops_early(self) -> bool:
        return self.early_stop

    @field_validator("cwd")
    @classmethod
    def _from_any_folder(cls, value: str | None) -> str:
        path = Path(os.getcwd()) if value is None else files.absolute(files.expanded(value))
        if not path.is_dir():
            raise ValueError(f"no such folder: {files.shown(path)}")
        return str(path)


class ConfiguredSpec(ProcessSpec):
    """What all tools have that train from a configuration file of the user's.

    Args:
        launcher: command line that starts the tool; None means the tool's own, see the subclasses.
        devices: processes that the launcher starts, which share a batch.
        examples: training examples of a full run, which is the training rows times the epochs, or where the file packs
            rows the packed sequences times the epochs; None means what the file says by the number of steps.
    """

    ignores = (
        *("evaluation", "adapter", "base"),
        *(key for key in TRAINING if key != "training.checkpoint_seconds"),
        *(f"training.{name}" for name in TOLD_BY_FILE),
    )

    launcher: str | None = Field(default=None, min_length=1)
    devices: int = Field(default=1, ge=1, le=10**6)
    examples: int | None = Field(default=None, ge=1, le=10**12)  # type: ignore[assignment]

    @property
    def file(self) -> str:
        """The configuration file."""
        found: str = getattr(self, self.kind)
        return found

    @property
    def settings_file(self) -> str:
        return self.file


@register
class CommandTrainerSpec(ProcessSpec):
    """A command line that trains one segment of one trial.

    Args:
        command: with ``{learning_rate}``, ``{folder}`` and the like, each of which is replaced by its value, quoted for
            the shell: write them without quotes of your own. Write ``{{`` and ``}}`` for braces of its own. ``{gpus}``,
            ``{port}``, ``{host}``, ``{rendezvous}``, ``{nodes}`` and ``{node_rank}`` say where its processes run and
            meet.
        metric_file: file with the score, JSON, in place of a report; with the same fields as ``command``.
        metric_pattern: regular expression that is looked for in each line of the output, in place of a report. Its
            first group is the score; the last line that matches counts.
    """

    kind = "command"
    home = "autolora.trainers.command.trainer:CommandTrainer"
    spans_nodes = True

    command: str = Field(min_length=1)
    metric_file: str | None = Field(default=None, min_length=1)
    metric_pattern: str | None = Field(default=None, min_length=1)

    @property
    def unnamed_score(self) -> str | None:
        return None if self.metric_pattern is None else "metric_pattern"

    @field_validator("metric_pattern")
    @classmethod
    def _has_a_group(cls, value: str | None) -> str | None:
        if value is None:
            return value
        try:
            groups = re.compile(value).groups
        except re.error as error:
            raise ValueError(f"{value!r} is not a regular expression: {error}") from None
        if groups < 1:
            raise ValueError(f"{value!r} has no group; put the number in brackets, as in 'accuracy: ([0-9.]+)'")
        return value

    @model_validator(mode="after")
    def _one_way(self) -> CommandTrainerSpec:
        if self.metric_file is not None and self.metric_pattern is not None:
            raise ValueError("metric_file and metric_pattern are both given: set one of them")
        return self
