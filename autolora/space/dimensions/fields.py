"""Any other field of the trainer: whatever argument it takes, searched if the space names it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any, TypeGuard

from pydantic import BeforeValidator, PlainSerializer
from pydantic import Field as ModelField

from autolora.space.config import Config, Value
from autolora.space.coordinates import Coordinates
from autolora.space.dimension import (
    Belief,
    Category,
    Dimension,
    Encoding,
    Parameter,
    Scope,
    SpaceFields,
    register,
    registry,
)
from autolora.space.domain import corners, is_number
from autolora.space.encoder import Encoder
from autolora.space.field import Field, field_of, in_order, read, shown, written
from autolora.space.named import Choice, Named, Scalar

if TYPE_CHECKING:
    import numpy as np

PREFIX = "fields."
"""Of the parameters of a study."""
LENGTH = 1.4
"""Share of a field's domain over which scores stay alike; two choices that are no numbers are a whole domain apart."""
LEVEL_SD = 1.0
"""What a field may be worth, from one end to the other or from choice to choice, in units of the response."""
SHIFT_SD = 0.2
"""Decades by which another choice, such as another optimizer, may move the best learning rate."""
LISTED = 1024
"""More combinations than this are not listed one by one."""


class TrainerFields(Dimension):
    """The value is a :class:`~autolora.space.named.Named`: each field that counts, with its value."""

    name = "fields"
    about = (
        "any other field of the trainer by name: ``{adam_beta2: [0.95, 0.999]}``. A list holds choices: numbers, text, "
        "truth values, lists of names; {low, high}, with log: true, is a range. {choices: [4, 16], when: {optim: "
        "adafactor}} counts only there, and prefer: says what is expected to be best, which is otherwise what the "
        "trainer does."
    )
    label = "fields"
    brief = ""
    column = 110
    drawn = 110
    optional = True
    at_attach = True

    def field(self) -> tuple[object, object]:
        kinds: object = Annotated[Any, BeforeValidator(_written), PlainSerializer(_recorded)]
        return kinds, ModelField(default=None)

    def accepts(self, value: object) -> TypeGuard[Any]:
        return isinstance(value, Named)

    def searched(self, space: SpaceFields) -> bool:
        return bool(space.fields)

    def default(self, scope: Scope, config: Config) -> float:
        raise NotImplementedError("fields are completed one by one")

    def of(self, space: SpaceFields) -> Mapping[str, Field]:
        """The fields of a space, each after those that it depends on; empty if it names none."""
        found: Mapping[str, Field] = space.fields or {}
        return found

    def informed(self, space: SpaceFields, standards: Mapping[str, Any]) -> dict[str, Field] | None:
        """The fields of a space with what the trainer does if nothing is said of them."""
        known = {name: value for name, value in standards.items() if value is not None}
        found = {
            name: field.informed(known[name]) if name in known and field.standard is None else field
            for name, field in self.of(space).items()
        }
        return found or None

    def standing(self, space: SpaceFields) -> Named:
        """What the trainer does today, of the fields of which that is known."""
        known: dict[str, Choice] = {}
        for name, field in self.of(space).items():
            if field.standard is not None and field.active(known):
                known[name] = field.standard
        return Named.of(known)

    def completed(self, scope: Scope, config: Config) -> Named:
        """A user's values with those that are left open: as pinned, or as preferred.

        Raises:
            ValueError: one sets a field that is not searched, or has a value that the field never has.
        """
        given, fields = dict(config.value(self.name) or ()), self.of(scope.space)
        found: dict[str, Choice] = {}
        for name, value in given.items():
            if name not in fields:
                raise ValueError(f"sets fields.{name}, which space.fields does not name")
            if not fields[name].accepts(value):
                raise ValueError(f"has fields.{name} = {value!r}, which is not among its values in space.fields")
        for name, field in fields.items():
            if field.active(found):
                found[name] = given.get(name, field.mode)
        return Named.of(found)

    def uniform(self, rng: np.random.Generator, scope: Scope, config: Config) -> Named:
        return self._drawn(scope, lambda field: field.uniform(rng))

    def sample(self, rng: np.random.Generator, scope: Scope, config: Config, belief: Belief) -> Named:
        return self._drawn(scope, lambda field: field.sample(rng))

    def near(
        self, rng: np.random.Generator, scope: Scope, config: Config, trial: Config, coordinates: Coordinates
    ) -> Named:
        before = dict(trial.value(self.name) or ())
        return self._drawn(scope, lambda field: field.near(rng, before.get(field.name)))

    def mode(self, scope: Scope, config: Config, coordinates: Coordinates) -> Named:
        return self._drawn(scope, lambda field: field.mode)

    def largest(self, scope: Scope, config: Config) -> Named:
        return self._drawn(scope, lambda field: field.largest)

    def _drawn(self, scope: Scope, draw: Any) -> Named:
        found: dict[str, Choice] = {}
        for name, field in self.of(scope.space).items():
            if field.active(found):
                found[name] = draw(field)
        return Named.of(found)

    def density(self, scope: Scope, config: Config, belief: Belief) -> float:
        return math.prod(field.density(value) for field, value in self._pairs(scope, config))

    def uniform_density(self, scope: Scope, config: Config) -> float:
        return math.prod(field.uniform_density for field, _ in self._pairs(scope, config))

    def _pairs(self, scope: Scope, config: Config) -> list[tuple[Field, Choice]]:
        fields = self.of(scope.space)
        return [(fields[name], value) for name, value in config.value(self.name) or () if name in fields]

    def values(self, scope: Scope, config: Config) -> list[Named] | None:
        """Every combination; None if one is a range, or they are too many to be listed."""
        fields = self.of(scope.space).values()
        if any(not isinstance(field.domain, tuple) for field in fields) or self._count(scope) > LISTED:
            return None
        return self._combinations(scope)

    def corners(self, scope: Scope, config: Config) -> list[Named]:
        """Every combination of choices and ends; of too many, each choice once, with all else as is expected."""
        return self._combinations(scope) if self._count(scope) <= LISTED // 16 else self.each_value(scope)

    def covering(self, scope: Scope) -> list[Named]:
        """Few settings that have each value of each field that counts in them."""
        fields = self.of(scope.space).values()
        most = max((len(field.corners) for field in fields), default=0)
        found = {
            self._drawn(scope, lambda field, at=at: field.corners[at % len(field.corners)]): None for at in range(most)
        }
        return list(found)

    def each_value(self, scope: Scope) -> list[Named]:
        """Each choice and end once, with all else as is expected."""
        found: dict[Named, None] = {}
        for field in self.of(scope.space).values():
            for value in field.corners:
                wanted = {**self._at(scope, field), field.name: value}
                found[self._drawn(scope, lambda each, wanted=wanted: wanted.get(each.name, each.mode))] = None
        return list(found)

    def _at(self, scope: Scope, field: Field) -> dict[str, Choice]:
        """Values of other fields at which one counts."""
        fields = self.of(scope.space)
        found: dict[str, Choice] = {}
        for name, values in field.when:
            found |= {**self._at(scope, fields[name]), name: values[0]}
        return found

    def _count(self, scope: Scope) -> int:
        return math.prod(len(field.corners) for field in self.of(scope.space).values())

    def _combinations(self, scope: Scope) -> list[Named]:
        fields = self.of(scope.space)
        found: dict[Named, None] = {}
        for values in product(*(field.corners for field in fields.values())):
            chosen = dict(zip(fields, values, strict=True))
            found[self._drawn(scope, lambda field, chosen=chosen: chosen[field.name])] = None
        return list(found)

    def encoder(self, encoding: Encoding) -> Encoder:
        return FieldsEncoder(self.of(encoding.space)) if self.searched(encoding.space) else Encoder()

    def parameters(self, space: SpaceFields, variant: str, config: Config) -> dict[str, Parameter | Category]:
        """By "fields.name". Numbers have their interval, others are categories, a list of names as JSON."""
        fields = self.of(space)
        found: dict[str, Parameter | Category] = {}
        for name, value in config.value(self.name) or ():
            field, key = fields[name], f"{PREFIX}{name}"
            if not field.numeric:
                found[key] = Category(written(value), field.categories)
                continue
            ends = corners(field.numbers)
            log = getattr(field.domain, "log", False) and is_number(value) and value > 0
            found[key] = Parameter.among(ends, value, log=log)
        return found

    def read(self, parameters: Mapping[str, Any], variant: str) -> dict[str, Value]:
        own = {key.removeprefix(PREFIX): read(value) for key, value in parameters.items() if key.startswith(PREFIX)}
        return {self.name: Named.of(own)} if own else {}

    def text(self, config: Config) -> str:
        return "  ".join(f"{name} {shown(value)}" for name, value in config.value(self.name) or ())

    def phrase(self, config: Config) -> str:
        return self.text(config)

    def cost_key(self, config: Config) -> Value | None:
        """Values that are no numbers, as another optimizer and other layers may take another time."""
        return Named.of([(name, value) for name, value in config.value(self.name) or () if not is_number(value)])

    def memory_key(self, config: Config) -> Value | None:
        return self.cost_key(config)


class FieldsEncoder(Encoder):
    """Numbers: their place, a line and a coordinate. Others: coordinates, and for each choice but the preferred one a
    line and a shift of the best learning rate. A field that does not count is in the middle of what it could be.
    """

    def __init__(self, fields: Mapping[str, Field]) -> None:
        self._numeric = [field for field in fields.values() if field.numeric and not field.pinned]
        others = [field for field in fields.values() if not field.numeric and not field.pinned]
        self._choices: list[tuple[Field, Choice]] = [
            (field, choice) for field in others for choice in field.corners if choice != field.preferred
        ]
        self._sites: list[tuple[Field, Choice]] = [(field, choice) for field in others for choice in field.corners]
        count = len(self._choices)
        self.line_sds = (LEVEL_SD,) * (len(self._numeric) + count)
        self.shift_sds = (SHIFT_SD,) * count
        self.width = len(self._numeric) + len(self._sites)

    def lines(self, variant: str, config: Config) -> list[float]:
        given = _given(config)
        places = [field.place(given.get(field.name)) - 0.5 for field in self._numeric]
        return places + self.shifts(variant, config)

    def shifts(self, variant: str, config: Config) -> list[float]:
        given = _given(config)
        return [float(given.get(field.name) == choice) for field, choice in self._choices]

    def settings(self, variant: str, config: Config) -> list[float]:
        given = _given(config)
        places = [field.place(given.get(field.name)) / LENGTH for field in self._numeric]
        sites = []
        for field, choice in self._sites:
            value = given.get(field.name)
            # Two choices are a domain apart, and any other value is as far from all.
            share = float(value == choice) if value in field.corners else 1 / len(field.corners)
            sites.append(share / (math.sqrt(2) * LENGTH))
        return places + sites


def _given(config: Config) -> dict[str, Choice]:
    return dict(config.value("fields") or ())


def _written(value: object) -> dict[str, Field] | None:
    """The fields of what a user writes, each after those that it depends on."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise ValueError(f"{value!r} is not allowed; give values by name, as in {{adam_beta2: [0.95, 0.999]}}")
    for name in value:
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"{name!r} is not a name of a field; it has letters, digits and _ alone")
        owner = next((each.name for each in registry() if name in (each.name, *each.aliases)), None)
        if owner is not None:
            raise ValueError(f"{name} has a key of its own; write space.{owner}")
    return in_order(field_of(name, given) for name, given in value.items()) or None


def _recorded(value: Mapping[str, Field] | None) -> dict[str, object] | None:
    return None if value is None else {name: field.recorded() for name, field in sorted(value.items())}


def text_of(values: Mapping[str, Scalar | list[str]]) -> str:
    """Values of fields for people: "adam_beta2 0.95, optimizer nadam"."""
    return ", ".join(f"{name} {shown(value)}" for name, value in Named.of(values))


FIELDS = TrainerFields()
register(FIELDS)
