"""Names that PEFT reads otherwise than they are written, on models whose experts became parameters.

In transformers 4, ``gate_proj``, ``up_proj`` and ``down_proj`` of such a model were each expert's; in transformers 5
they are those of its dense layers alone. PEFT takes these names in a ``LoraConfig`` for the experts' parameters, so
that adapters of transformers 4 load, and then a dense layer of that name cannot be named (peft#3009). Its weight can,
as a parameter: such names are read as they are written.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peft.tuners.tuners_utils import BaseTuner
    from torch import nn


def misread(model: nn.Module, names: Iterable[str]) -> list[str]:
    """Those of some modules' names that PEFT would take for another in a ``LoraConfig`` for this model."""
    by_end: dict[str, list[str]] = {}
    for name in names:
        by_end.setdefault(name.rpartition(".")[2], []).append(name)
    return [name for end, alike in by_end.items() if _is_misread(model, end) for name in alike]


def _is_misread(model: nn.Module, end: str) -> bool:
    from peft import LoraConfig
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    config = LoraConfig(target_modules=[end])
    try:
        convert_peft_config_for_transformers(config, model, None)
    except ValueError:  # it is one of several that became one parameter
        return True
    return end not in (config.target_modules or ())


def as_written(tuner: type[BaseTuner], names: list[str]) -> type[BaseTuner]:
    """A tuner that adapts the modules of these names, given a configuration that names none."""

    class AsWritten(tuner):  # type: ignore[misc, valid-type]
        def _prepare_adapter_config(self, peft_config: Any, model_config: Any) -> Any:  # after PEFT has renamed
            peft_config.target_modules = set(names)
            return super()._prepare_adapter_config(peft_config, model_config)

    return AsWritten
