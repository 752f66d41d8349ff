"""Who trains: what every ``trainer`` section of a specification shares, and the registry of the kinds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from pydantic import ValidationError

from autolora.errors import closest
from autolora.mistakes import explain
from autolora.sections import Section
from autolora.space import Space
from autolora.variants import Variant

BUILTIN = "builtin"


class TrainerSpec(Section):
    """One kind of trainer, as a specification names it: a file of this folder, registered.

    Attributes:
        kind: the key of the section that names it, and what messages call it.
        home: the trainer's class, as "module:Class"; ``Class.open(spec, folder)`` makes it. It is imported late, so
            that a specification is checked without torch.
        requires: keys of the specification that must be given.
        ignores: keys of the specification, dotted where they are in a section, that have no effect on it.
        reports_metrics: whether the score is whatever the trainer reports under the metric's name, and not one of
            :mod:`autolora.metrics`.
        own_process: whether a trial is trained in a process of its own, which gets the GPUs of a worker as they are.
        spans_nodes: whether that process may be started on several nodes at once.
    """

    kind: ClassVar[str]
    home: ClassVar[str]
    requires: ClassVar[tuple[str, ...]] = ()
    ignores: ClassVar[tuple[str, ...]] = ()
    reports_metrics: ClassVar[bool] = True
    own_process: ClassVar[bool] = False
    spans_nodes: ClassVar[bool] = False

    @property
    def stops_early(self) -> bool:
        """Whether a training can be stopped at a rung and go on later; otherwise every trial is trained to the end."""
        return True

    @property
    def unnamed_score(self) -> str | None:
        """The setting that finds a score by something else than the metric's name, so that the metric must be given."""
        return None

    @property
    def settings_file(self) -> str | None:
        """The user's configuration file, which says what a study starts from; None if there is none."""
        return None

    def check_fields(self, space: Space, sections: Mapping[str, Any], variants: Mapping[str, Variant]) -> None:
        """Refuse fields of the space that the trainer is known not to have, or not so, before anything is loaded.

        Args:
            space: what is searched.
            sections: of the specification, by name.
            variants: by reference.

        Raises:
            ValueError: naming field and value.
        """

    def fields_of(self, sections: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the specification itself says of fields that the space may name, by their names."""
        return {}

    @property
    def references(self) -> list[str]:
        """What it names of the user's own modules, as ``"package.module:attribute"``."""
        return []


KINDS: dict[str, type[TrainerSpec]] = {}
"""Every kind by its key."""

Kind = TypeVar("Kind", bound=type[TrainerSpec])


def register(kind: Kind) -> Kind:
    """Add a kind of trainer; raises ``ValueError`` if its key is taken."""
    if kind.kind in KINDS:
        raise ValueError(f"a trainer named {kind.kind!r} is registered already")
    KINDS[kind.kind] = kind
    return kind


def trainer_of(value: object) -> object:
    """The section of a value: "builtin", ``"module:function"``, or a mapping with the key of one kind.

    Raises:
        ValueError: no kind has such a key, or its section is wrong.
    """
    if isinstance(value, TrainerSpec):
        return value
    if isinstance(value, str):
        value = {BUILTIN: BUILTIN} if value == BUILTIN else {"function": value}
    if not isinstance(value, Mapping):
        raise ValueError(f"{value!r} is not allowed; use {_choices()}")
    named = [key for key in value if key in KINDS]
    if len(named) != 1:
        close = next(filter(None, (closest(str(key), KINDS) for key in value)), None)
        hint = f"did you mean {close!r}? " if close and not named else ""
        keys = ", ".join(map(repr, map(str, value))) or "it has no keys"
        fault = f"{keys}: it names {len(named)} kinds of trainers" if named else f"{keys}: no kind of trainer is named"
        raise ValueError(f"{fault}; {hint}use {_choices()}")
    kind = KINDS[named[0]]
    try:
        return kind.model_validate(dict(value))
    except ValidationError as error:
        raise ValueError("; ".join(explain(error, dict(value), kind).splitlines())) from None


def _choices() -> str:
    mappings = ", ".join(f"{{{key}: ...}}" for key in KINDS if key not in (BUILTIN, "function"))
    return f'"{BUILTIN}", "module:function", or one of {mappings}'
