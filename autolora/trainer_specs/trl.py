"""TRL's trainers, with a configuration file of TRL's own."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from autolora import files
from autolora.sections import nearby
from autolora.trainer_specs.function import LOOP
from autolora.trainer_specs.trainer_spec import TrainerSpec, register


@register
class TrlTrainerSpec(TrainerSpec):
    """A trainer of TRL's, run in this process with TRL's own configuration file.

    Args:
        trl: which trainer.
        config: YAML file, as ``trl sft --config`` takes it; None means TRL's defaults.
    """

    kind = "trl"
    home = "autolora.trainers.trl.trainer:TrlTrainer"
    ignores = ("evaluation", *(f"training.{name}" for name in LOOP))

    trl: Literal["sft", "dpo", "kto", "reward", "grpo", "rloo"]
    config: str | None = None

    @property
    def settings_file(self) -> str | None:
        return self.config

    @field_validator("config")
    @classmethod
    def _is_there(cls, value: str | None) -> str | None:
        return value if value is None else existing_file(value)


def existing_file(value: str) -> str:
    """The absolute path of a file.

    Raises:
        ValueError: it is not there.
    """
    path = files.absolute(files.expanded(value))
    if not path.is_file():
        raise ValueError(f"no such file: {files.shown(path)}{nearby(path)}")
    return str(path)
