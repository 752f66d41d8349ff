"""axolotl, with a configuration file of its own."""

from __future__ import annotations

from pydantic import field_validator

from autolora.trainer_specs.command import ConfiguredSpec
from autolora.trainer_specs.trainer_spec import register
from autolora.trainer_specs.trl import existing_file


@register
class AxolotlTrainerSpec(ConfiguredSpec):
    """``axolotl train`` with a configuration file of its own.

    Args:
        axolotl: the YAML file.
        launcher: command line before the file's name; None means ``axolotl train``.
    """

    kind = "axolotl"
    home = "autolora.trainers.configurations.trainer:AxolotlTrainer"

    axolotl: str

    @field_validator("axolotl")
    @classmethod
    def _is_there(cls, value: str) -> str:
        return existing_file(value)
