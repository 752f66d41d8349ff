"""autolora's own training loop."""

from __future__ import annotations

from typing import Literal

from pydantic import model_serializer

from autolora.trainer_specs.trainer_spec import BUILTIN, TrainerSpec, register


@register
class BuiltinTrainerSpec(TrainerSpec):
    """autolora's own training loop, for causal language models."""

    kind = BUILTIN
    home = "autolora.trainers.builtin.trainer:BuiltinTrainer"
    requires = ("model", "data")
    reports_metrics = False

    builtin: Literal["builtin"] = "builtin"

    @model_serializer
    def _as_recorded(self) -> str:
        return BUILTIN
