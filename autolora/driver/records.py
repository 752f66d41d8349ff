"""What a specification that an earlier version recorded means today.

A key that the record lacks came later. It has the default of today, unless FORMER says what was done before there was
such a key. A key whose default has changed has in the record what was the default then. Where the user leaves it to the
default, the study goes on as it began.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel

from autolora import spec as specs
from autolora.files import Document
from autolora.spec import Spec

Model = TypeVar("Model", bound=BaseModel)

FORMER: Mapping[str, object] = {
    "training.max_length": 512,
    "data.eval": None,
    "adapter.target_modules": ".*",
    "adapter.target_parameters": [],
}
"""What keys had as default, or meant by not being there, before today's default came: by dotted key."""


def completed(recorded: Document) -> Document:
    """A recorded specification with every key of today."""
    found = _completed(recorded, specs.dump(specs.load(model="none", data="none")))
    for key, value in FORMER.items():
        section, _, name = key.rpartition(".")
        if name not in (recorded.get(section) or {}):
            found[section][name] = value
    return found


def continued(spec: Spec, recorded: Document) -> Spec:
    """The specification with the former default of each key that the user left to the default and the record has so."""
    found = completed(recorded)
    for key, value in FORMER.items():
        section, _, name = key.rpartition(".")
        own = getattr(spec, section)
        if name not in own.model_fields_set and found[section][name] == value:
            valid = type(own).model_validate({**dict(own), name: value})  # YAML has lists where a section has tuples
            spec = _replaced(spec, section, _replaced(own, name, getattr(valid, name)))
    return spec


def _completed(recorded: Document, defaults: Document) -> Document:
    """Sections that are there get the keys that they lack; what the record has, None included, stays."""
    found = dict(recorded)
    for key, default in defaults.items():
        if key not in found:
            found[key] = default
        elif isinstance(default, Mapping) and isinstance(found[key], Mapping):
            found[key] = _completed(found[key], dict(default))
    return found


def _replaced(section: Model, key: str, value: object) -> Model:
    return section.model_copy(update={key: value})
