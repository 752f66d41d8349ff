"""LLaMA-Factory, with a configuration file of its own."""

from __future__ import annotations

from pydantic import Field, field_validator

from autolora.trainer_specs.command import ProcessSpec
from autolora.trainer_specs.trainer_spec import register
from autolora.trainer_specs.trl import existing_file


@register
class LlamaFactoryTrainerSpec(ProcessSpec):
    """``llamafactory-cli train`` with a configuration file of its own.

    Args:
        llamafactory: the YAML file.
        launcher: command line before the file's name.
        examples: of a full run; None means what the file says by ``max_steps``, which must then be there.
    """

    kind = "llamafactory"
    home = "autolora.trainers.command.llamafactory:LlamaFactoryTrainer"

    llamafactory: str
    launcher: str = "llamafactory-cli train"
    examples: int | None = Field(default=None, ge=1, le=10**12)  # type: ignore[assignment]

    @field_validator("llamafactory")
    @classmethod
    def _is_there(cls, value: str) -> str:
        return existing_file(value)
