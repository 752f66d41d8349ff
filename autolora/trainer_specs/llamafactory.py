"""LLaMA-Factory, with a configuration file of its own."""

from __future__ import annotations

from pydantic import field_validator

from autolora.trainer_specs.command import ConfiguredSpec
from autolora.trainer_specs.trainer_spec import register
from autolora.trainer_specs.trl import existing_file


@register
class LlamaFactoryTrainerSpec(ConfiguredSpec):
    """``llamafactory-cli train`` with a configuration file of its own.

    Args:
        llamafactory: the YAML file.
        launcher: command line that runs a Python module, which is put behind it; None means this Python and ``-m``. For
            another environment ``/path/to/bin/python -m``, for several GPUs ``torchrun --nproc-per-node 4 -m``.
    """

    kind = "llamafactory"
    home = "autolora.trainers.configurations.trainer:LlamaFactoryTrainer"

    llamafactory: str

    @field_validator("llamafactory")
    @classmethod
    def _is_there(cls, value: str) -> str:
        return existing_file(value)
