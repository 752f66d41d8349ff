"""autolora's own training loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal

from pydantic import ValidationError, model_serializer

from autolora.adapters.optimizers import KEYS as OPTIMIZER_KEYS
from autolora.errors import closest
from autolora.mistakes import explain
from autolora.sections import Section
from autolora.space import FIELDS, Space
from autolora.space.domain import Range
from autolora.space.field import Field
from autolora.space.named import unheld
from autolora.trainer_specs.trainer_spec import BUILTIN, TrainerSpec, register
from autolora.variants import Variant

SEARCHED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "training": ("schedule", "max_grad_norm", *OPTIMIZER_KEYS),
        "adapter": ("target_modules", "exclude_modules"),
    }
)
"""Keys by section that a space may name as fields: they change what a trial computes, and not the data."""


@register
class BuiltinTrainerSpec(TrainerSpec):
    """autolora's own training loop, for causal language models."""

    kind = BUILTIN
    home = "autolora.trainers.builtin.trainer:BuiltinTrainer"
    requires = ("model", "data")
    reports_metrics = False

    builtin: Literal["builtin"] = "builtin"

    def fields_of(self, sections: Mapping[str, Any]) -> Mapping[str, Any]:
        found = {key: getattr(sections[section], key) for section, keys in SEARCHED.items() for key in keys}
        return {key: () if value is None else value for key, value in found.items()}  # no names

    def check_fields(self, space: Space, sections: Mapping[str, Any], variants: Mapping[str, Variant]) -> None:
        owners = {key: section for section, keys in SEARCHED.items() for key in keys}
        for name, field in FIELDS.of(space).items():
            if name not in owners:
                close = closest(name, owners)
                hint = f"did you mean {close!r}? " if close else ""
                raise ValueError(f"space.fields.{name}: unknown; {hint}the builtin trainer has {', '.join(owners)}")
            _check_values(field, owners[name], sections[owners[name]])
        for key, value in self._optimizer_values(space, sections):
            own = next((variant for variant in variants.values() if variant.has_own_optimizer), None)
            if own is not None and value != type(sections["training"]).model_fields[key.rpartition(".")[2]].default:
                raise ValueError(
                    f"{key}: {value!r} does not go with {own.name}, which has an optimizer of its own "
                    f"({own.optimizer_name}): leave {own.name} out of variants, or the key out"
                )

    def _optimizer_values(self, space: Space, sections: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        for key in OPTIMIZER_KEYS:
            yield f"training.{key}", getattr(sections["training"], key)
            field = FIELDS.of(space).get(key)
            yield from ((f"space.fields.{key}", value) for value in (field.corners if field else ()))

    @model_serializer
    def _as_recorded(self) -> str:
        return BUILTIN


def _check_values(field: Field, owner: str, section: Section) -> None:
    """Raise ``ValueError`` for a value that the section would refuse."""
    if isinstance(field.domain, Range) and isinstance(getattr(section, field.name), (str, tuple)):
        raise ValueError(f"space.fields.{field.name}: a range is not allowed; {owner}.{field.name} takes no numbers")
    for value in field.corners:
        raw = {**dict(section), field.name: unheld(value)}
        try:
            type(section).model_validate(raw)
        except ValidationError as error:
            said = explain(error, raw, type(section)).splitlines()[0].removeprefix(f"{field.name}: ")
            raise ValueError(f"space.fields.{field.name}: {said}") from None
