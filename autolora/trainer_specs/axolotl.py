"""axolotl, with a configuration file of its own."""

from __future__ import annotations

from pydantic import Field, field_validator

from autolora.trainer_specs.command import ProcessSpec
from autolora.trainer_specs.trainer_spec import register
from autolora.trainer_specs.trl import existing_file


@register
class AxolotlTrainerSpec(ProcessSpec):
    """``axolotl train`` with a configuration file of its own.

    Args:
        axolotl: the YAML file.
        launcher: command line before the file's name.
        examples: of a full run; None means what the file says by ``max_steps``, which must then be there.
    """

    kind = "axolotl"
    home = "autolora.trainers.command.axolotl:AxolotlTrainer"

    axolotl: str
    launcher: str = "axolotl train"
    examples: int | None = Field(default=None, ge=1, le=10**12)  # type: ignore[assignment]

    @field_validator("axolotl")
    @classmethod
    def _is_there(cls, value: str) -> str:
        return existing_file(value)
