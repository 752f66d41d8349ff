"""What is wrong with a specification, in the words of whoever wrote it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import get_args

from pydantic import BaseModel, ValidationError

from autolora import urls
from autolora.errors import closest


def explain(error: ValidationError, raw: Mapping[str, object], whole: type[BaseModel]) -> str:
    """One line per mistake, in the user's terms.

    Args:
        error: what validating raised.
        raw: what was validated.
        whole: the section that it was validated as.
    """
    lines: dict[str, str] = {}
    for item in error.errors():
        section, path, rest = _locate(item["loc"], whole)
        if item["type"] == "extra_forbidden" and not rest[1:]:
            path, rest = (*path, str(rest[0])), ()
        is_union_branch = bool(rest) and isinstance(rest[0], str)
        key = ".".join(path) + ("" if is_union_branch else "".join(f"[{index}]" for index in rest))
        if item["type"] == "value_error":  # written by a validator of ours: better than anything below
            lines[key] = str(item["ctx"]["error"])
        elif is_union_branch:
            expected = section.model_fields[path[-1]].description
            lines.setdefault(key, f"{shortened(_given(raw, path))} is not allowed; use {expected}")
        elif item["type"] == "extra_forbidden":
            close = closest(path[-1], section.model_fields)
            hint = f"did you mean {close!r}?" if close else f"known here: {', '.join(section.model_fields)}"
            lines[key] = f"unknown key; {hint}"
        elif item["type"] == "missing":
            lines[key] = "missing; it has no default"
        elif item["type"] == "model_type":
            holds = _section(section.model_fields[path[-1]].annotation) or section
            lines[key] = f"{shortened(item['input'])} is not allowed; it holds keys: {', '.join(holds.model_fields)}"
        else:
            lines[key] = f"{shortened(item['input'])} is not allowed; {_reworded(item['msg'])}"
    return "\n".join(f"{key}: {line}" if key else line for key, line in lines.items())


def _locate(
    location: tuple[int | str, ...], whole: type[BaseModel]
) -> tuple[type[BaseModel], tuple[str, ...], tuple[int | str, ...]]:
    """Split pydantic's location.

    Returns:
        The innermost section that it leads into, the field names, and what follows them: list indices, or names of
        the branches of a union.
    """
    section = whole
    for depth, part in enumerate(location):
        if part not in section.model_fields:
            return section, tuple(map(str, location[:depth])), location[depth:]
        inner = _section(section.model_fields[str(part)].annotation)
        if inner is None or depth + 1 == len(location):
            return section, tuple(map(str, location[: depth + 1])), location[depth + 1 :]
        section = inner
    return section, tuple(map(str, location)), ()


def _section(annotation: object) -> type[BaseModel] | None:
    """The model that a field holds, if it can hold nothing else but None."""
    kinds = [kind for kind in get_args(annotation) or (annotation,) if kind is not type(None)]
    return kinds[0] if len(kinds) == 1 and isinstance(kinds[0], type) and issubclass(kinds[0], BaseModel) else None


def _given(raw: object, path: tuple[str, ...]) -> object:
    for key in path:
        raw = raw[key] if isinstance(raw, Mapping) else getattr(raw, key)
    return raw


def _reworded(message: str) -> str:
    """Pydantic's message, without its vocabulary."""
    text = re.sub(r"^\w+ should", "it should", message)
    text = re.sub(r"(, unable to| after validation|, got a).*", "", text)
    for ours, theirs in (
        ("a whole number", "a valid integer"),
        ("a list", "a valid tuple"),
        ("a ", "a valid "),
        ("at least ", "greater than or equal to "),
        ("above ", "greater than "),
        ("below ", "less than "),
    ):
        text = text.replace(theirs, ours)
    return text


def shortened(value: object) -> str:
    """A value as it was written, in at most 80 letters and without secrets."""
    text = urls.scrubbed(repr(value))  # before it is cut: of a part of a URL nobody can tell what is secret
    return text if len(text) <= 80 else text[:77] + "..."
