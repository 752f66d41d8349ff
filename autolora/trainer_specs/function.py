"""A function of the user's that makes a ``transformers.Trainer``."""

from __future__ import annotations

import re

from pydantic import field_validator, model_serializer

from autolora.adapters.optimizers import KEYS as OPTIMIZER_KEYS
from autolora.trainer_specs.trainer_spec import TrainerSpec, register

LOOP = (
    *("schedule", "warmup_ratio", "weight_decay", "max_grad_norm", "max_length", "gradient_checkpointing", "compile"),
    *OPTIMIZER_KEYS,
)
"""Settings of ``training`` that a trainer with settings of its own has itself."""
_WORDS = r"[^\W\d]\w*(\.[^\W\d]\w*)*"
_FUNCTION = re.compile(f"{_WORDS}:{_WORDS}")


@register
class FunctionTrainerSpec(TrainerSpec):
    """A function of the user's that is given a trial and returns a ``transformers.Trainer``, or one of a subclass.

    Args:
        function: ``"package.module:function"``.
    """

    kind = "function"
    home = "autolora.trainers.transformers.function:FunctionTrainer"
    ignores = ("data", "evaluation", *(f"training.{name}" for name in LOOP))

    function: str

    @field_validator("function")
    @classmethod
    def _names_one(cls, value: str) -> str:
        if not _FUNCTION.fullmatch(value):
            raise ValueError(f"{value!r} names no function; write package.module:function")
        return value

    @property
    def references(self) -> list[str]:
        return [self.function]

    @model_serializer
    def _as_recorded(self) -> str:
        return self.function
