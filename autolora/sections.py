"""What every section of a specification shares."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from autolora import files
from autolora.errors import closest

V = TypeVar("V")


class Section(BaseModel):
    """A section of a specification: immutable, and without keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


def required(value: V) -> V:
    """The value of a key that must have one; a key written without a value is None in YAML.

    Raises:
        ValueError: there is none.
    """
    if value is None or value == "":
        raise ValueError("missing; it has no default")
    return value


def nearby(path: Path) -> str:
    """A hint at a sibling with a similar name, for a path that does not exist; empty if there is none."""
    if not path.parent.is_dir():
        return ""
    close = closest(path.name, (sibling.name for sibling in path.parent.iterdir()))
    return f" (did you mean {files.shown(path.parent / close)}?)" if close else ""
