"""The section of a specification that says which layers carry an adapter."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from autolora.sections import Section
from autolora.space import FIELDS, Config

ALL_LINEAR, AUTO = "all-linear", "auto"
"""Values of ``target_modules`` and ``target_parameters``."""

ALSO = {f"lora_{name}": name for name in ("target_modules", "target_parameters")}
"""What TRL and axolotl call them."""


class AdapterSpec(Section):
    """Which layers carry an adapter; the keys are named as in PEFT's ``LoraConfig``.

    Args:
        target_modules: "all-linear", a list of module names or of their ends, or a regular expression that matches
            whole module names. "all-linear" leaves out the output head, routers and gates, and all that is not of the
            language model; a list or an expression names these, too, except the head. None or an empty list: no
            module.
        exclude_modules: a list of names or of their ends, or a regular expression over whole names, of what is left
            out of the above, and of ``target_parameters``.
        target_parameters: names of parameters or their ends, for layers that are not modules: the experts of a mixture
            of experts. "auto": all experts where ``target_modules`` is "all-linear", otherwise those that it matches.
            None or an empty list: none.
    """

    target_modules: tuple[str, ...] | str = Field(
        default=ALL_LINEAR, description='"all-linear", a list of names, or a regular expression'
    )
    exclude_modules: tuple[str, ...] | str | None = Field(
        default=None, description="a list of names, a regular expression or null"
    )
    target_parameters: tuple[str, ...] | Literal["auto"] = Field(
        default="auto", description='"auto", a list of names, or null'
    )

    @field_validator("target_modules", "target_parameters", mode="before")
    @classmethod
    def _none_is_empty(cls, value: object) -> object:
        return () if value is None else value

    @field_validator("target_modules", "exclude_modules")
    @classmethod
    def _valid_expression(cls, value: tuple[str, ...] | str | None) -> tuple[str, ...] | str | None:
        if not isinstance(value, str):
            return value
        if value.lower() == ALL_LINEAR:
            return ALL_LINEAR
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"{value!r} is not a valid regular expression: {error}. Write names as a list") from None
        return value

    def of_trial(self, config: Config) -> AdapterSpec:
        """This section with the values that a configuration has of it."""
        named = {ALSO.get(name, name): value for name, value in config.value(FIELDS.name) or ()}
        found = {name: value for name, value in named.items() if name in type(self).model_fields}
        return self.model_validate({**dict(self), **found}) if found else self

    @model_validator(mode="after")
    def _something_is_adapted(self) -> AdapterSpec:
        if not self.target_modules and not self.target_parameters:
            raise ValueError("target_modules and target_parameters are both empty: name the layers to adapt")
        if not self.target_modules and self.target_parameters == AUTO:
            raise ValueError("target_modules is empty: name what to adapt in target_parameters, as in [down_proj]")
        return self
