"""What every section of a specification shares."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from autolora import files
from autolora.errors import closest

V = TypeVar("V")


class Section(BaseModel):
    """A section of a specification: immutable, without keys that it does not know, and with finite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_zero_byte(cls, value: object) -> object:
        if isinstance(value, str) and "\0" in value:
            raise ValueError(f"{value[:40]!r} is not allowed; it holds a zero byte, which no name or path can")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value_as_number(cls, value: object, info: ValidationInfo) -> object:
        return without_truth_values(value, cls.model_fields[str(info.field_name)].annotation)


def without_truth_values(value: V, annotation: object) -> V:
    """The value of a field, unless it is true or false, alone or in a list, and the field takes neither.

    In YAML ``yes`` and ``on`` are true, which Python counts as 1.

    Raises:
        ValueError: it is.
    """
    listed = value if isinstance(value, (list, tuple)) else [value]
    found = next((each for each in listed if isinstance(each, bool)), None)
    if found is None or takes_truth_values(annotation):
        return value
    raise ValueError(
        f"{str(found).lower()} is not allowed (YAML reads yes, on, no and off so); write null for none, a number, or "
        "text in quotes"
    )


def takes_truth_values(annotation: object) -> bool:
    """Whether ``bool`` is among the types of an annotation."""
    if annotation is bool:
        return True
    if get_origin(annotation) is Annotated:
        return takes_truth_values(get_args(annotation)[0])
    return any(takes_truth_values(each) for each in get_args(annotation))


def required(value: V) -> V:
    """The value of a key that must have one; a key written without a value is None in YAML.

    Raises:
        ValueError: there is none.
    """
    if value is None or value == "":
        raise ValueError("missing; it has no default")
    return value


def nearby(path: Path) -> str:
    """A hint for a path that does not exist: a link to nothing, or a sibling with a similar name; empty if neither."""
    if path.is_symlink():
        return f", which is a link to nothing ({os.readlink(path)})"
    if not path.parent.is_dir():
        return ""
    close = closest(path.name, (sibling.name for sibling in path.parent.iterdir()))
    return f" (did you mean {files.shown(path.parent / close)}?)" if close else ""
