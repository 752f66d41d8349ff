"""What a specification that an earlier version recorded means today.

A key that the record lacks came later. It has the default of today, unless FORMER says what was done before there was
such a key. A key whose default has changed has in the record what was the default then. Where the user leaves it to the
default, the study goes on as it began.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from autolora import files, references, urls
from autolora import spec as specs
from autolora.errors import AutoloraError
from autolora.files import Document
from autolora.spec import Spec
from autolora.study.directory import SPEC_FILE, recorded_spec
from autolora.tasks.data.sources import ROLES

Model = TypeVar("Model", bound=BaseModel)

FORMER: Mapping[str, object] = {
    "training.max_length": 512,
    "data.eval": None,
    "adapter.target_modules": ".*",
    "adapter.target_parameters": [],
    "evaluation.subset": False,
}
"""What keys had as default, or meant by not being there, before today's default came: by dotted key."""
SETTLED = ("evaluation.subset",)
"""Of these keys, those whose "auto" is settled when a study begins, as the record has it."""
STARTED = ("trainer.cwd",)
"""Keys whose default is where autolora was started: a study keeps that of its first start."""
OBJECTS = ("<model ", "<dataset ")
"""How a record begins that stands for a Python object."""


class RecordError(AutoloraError, ValueError):
    """A recorded specification does not say all that is needed to go on with it."""


def recorded_to_spec(folder: Path, given: Mapping[str, object] | None = None) -> Spec:
    """The specification that a run directory records, to go on with from any folder.

    Modules of the user's can be imported afterwards from where they were found. A password that is hidden in the record
    is looked for when it is used, see :func:`autolora.study.storage.resolved`.

    Args:
        folder: run directory.
        given: keys of the specification in place of the recorded ones, such as a model object.

    Raises:
        NoStudyError: it holds no specification.
        RecordError: model or data were given as Python objects, and are not given again.
        SpecError: the record is wrong, or a file that it names is no longer there.
    """
    recorded = dict(recorded_spec(folder))
    data = recorded.get("data")
    for key, value in (given or {}).items():
        if key == "data" and isinstance(data, Mapping):
            recorded[key] = {**data, **(value if isinstance(value, Mapping) else {"train": value})}
        else:
            recorded[key] = value
    objects = [f"{key} ({value[1:-1]})" for key, value in _named_data(recorded) if value.startswith(OBJECTS)]
    if objects:
        raise RecordError(
            f"{files.shown(folder / SPEC_FILE)} cannot restore {' and '.join(objects)}: given as Python objects. Give "
            "them again: autolora.resume and autolora.finish take model= and data="
        )
    references.importable_from(recorded.get(specs.IMPORTED_FROM, ()))
    try:
        return specs.validate(completed(recorded))
    except specs.SpecError as error:
        raise specs.SpecError(f"{files.shown(folder / SPEC_FILE)}: {error}") from None


def hidden_keys(folder: Path) -> list[str]:
    """Keys of URLs whose secrets the record of a run directory leaves out; none if there is no record."""
    if not (folder / SPEC_FILE).is_file():
        return []
    recorded = recorded_spec(folder)
    return [key for key in specs.URLS if recorded.get(key) and urls.is_hidden(recorded[key])]


def _named_data(recorded: Document) -> Iterator[tuple[str, str]]:
    """Names of model and data in a record, with their keys."""
    found = {"model": recorded.get("model")}
    found |= {f"data.{role}": (recorded.get("data") or {}).get(role) for role in ROLES}
    for key, value in found.items():
        yield from ((key, each) for each in (value if isinstance(value, list) else [value]) if isinstance(each, str))


def completed(recorded: Document) -> Document:
    """A recorded specification with every key of today, and with absolute paths; see :func:`autolora.spec.located`."""
    plain = {key: value for key, value in recorded.items() if key != specs.IMPORTED_FROM}
    found = _completed(specs.located(plain), specs.dump(specs.load(model="none", data="none")))
    for key, value in FORMER.items():
        section, _, name = key.rpartition(".")
        if found[section] is not None and name not in (recorded.get(section) or {}):
            found[section][name] = value
    return found


def continued(spec: Spec, recorded: Document) -> Spec:
    """The specification as the study began: with the former default of each key that the user left to the default and
    the record has so, with what "auto" was settled to, and with the folder of the first start.

    Raises:
        RecordError: that folder is gone, and no other is given.
    """
    found = completed(recorded)
    for key, value in FORMER.items():
        section, _, name = key.rpartition(".")
        own = getattr(spec, section)
        if own is None or found[section] is None:
            continue
        then = found[section][name]
        left_to_default = name not in own.model_fields_set and then == value
        left_open = key in SETTLED and getattr(own, name) == "auto"
        if left_to_default or left_open:
            valid = type(own).model_validate({**dict(own), name: then})  # YAML has lists where a section has tuples
            spec = _replaced(spec, section, _replaced(own, name, getattr(valid, name)))
    for key, _, then in _started_elsewhere(spec, found):
        section, _, name = key.rpartition(".")
        own = getattr(spec, section)
        if name in own.model_fields_set:
            continue
        if not Path(then).is_dir():
            raise RecordError(f"{key}: the study was started in {files.shown(then)}, which is gone; set {key}")
        spec = _replaced(spec, section, _replaced(own, name, then))
    return spec


def moved(spec: Spec, recorded: Document) -> Iterator[str]:
    """Keys of STARTED that a specification changes, each with what is recorded and what was asked for."""
    for key, now, then in _started_elsewhere(spec, recorded):
        yield f"{key}: {then} -> {now}"


def _started_elsewhere(spec: Spec, recorded: Document) -> Iterator[tuple[str, str, str]]:
    """Keys of STARTED whose values differ, each with the value asked for and the recorded one."""
    for key in STARTED:
        section, _, name = key.rpartition(".")
        then, now = recorded.get(section), getattr(getattr(spec, section), name, None)
        if now is not None and isinstance(then, Mapping) and then.get(name) not in (None, now):
            yield key, now, str(then[name])


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
