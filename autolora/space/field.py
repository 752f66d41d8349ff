"""One field of the trainer's own that a space names: where its values lie, when it counts, what is expected of it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, cast

from autolora.errors import closest
from autolora.space.domain import (
    KEEP_CHOICE,
    MOST_WHOLE_NUMBERS,
    Range,
    any_of,
    is_number,
    near,
    nearest,
    number,
    range_of,
    whole_numbers,
)
from autolora.space.named import Choice, Scalar, held, unheld

if TYPE_CHECKING:
    import numpy as np

RANGE_KEYS, CHOICES_KEY = ("low", "high", "log", "whole"), "choices"
WHEN, PREFER, STANDARD = "when", "prefer", "standard"
FORMS = (
    "write a value, a list of choices, {low: .., high: .., log: true}, or {choices: [..]}, each mapping with when and "
    "prefer if need be"
)
ODDS = 4.0
"""How much likelier the preferred value is than the farthest number, or than any other choice, by the prior."""
GRID = 32
"""Cells of equal length into which a range is cut for its prior."""
NEIGHBOR_SD = 0.2
"""Share of a range around a trial."""


@dataclass(frozen=True)
class Field:
    """A field of the trainer's own.

    Attributes:
        name: an argument of the trainer.
        domain: a range, or choices: numbers in ascending order, others in the order that they were written in.
        when: values of other fields at which it counts, by their names; empty: always.
        prefer: the value that the user expects to be best; None: not said.
        standard: what the trainer does if nothing is said of the field; None: not known.
    """

    name: str
    domain: Range | tuple[Choice, ...]
    when: tuple[tuple[str, tuple[Choice, ...]], ...] = ()
    prefer: Choice | None = None
    standard: Choice | None = None

    @cached_property
    def numeric(self) -> bool:
        """Whether its values are numbers, which lie on a line."""
        return isinstance(self.domain, Range) or all(map(is_number, self.domain))

    @property
    def numbers(self) -> Range | list[float]:
        """The domain of a numeric field."""
        return self.domain if isinstance(self.domain, Range) else cast("list[float]", list(self.domain))

    @property
    def pinned(self) -> bool:
        """Whether there is nothing to search."""
        return not isinstance(self.domain, Range) and len(self.domain) == 1

    @cached_property
    def preferred(self) -> Choice | None:
        """The value of the domain that is expected to be best: as the user says, or nearest to what the trainer does;
        None if neither is known."""
        value = self.standard if self.prefer is None else self.prefer
        if value is None or (not isinstance(self.domain, Range) and value in self.domain):
            return value
        return nearest(self.numbers, value) if self.numeric and is_number(value) else None

    @property
    def mode(self) -> Choice:
        """The most plausible value."""
        if self.preferred is not None:
            return self.preferred
        return self.domain.at(0.5) if isinstance(self.domain, Range) else self.domain[0]

    @property
    def largest(self) -> Choice:
        """The value whose training takes most memory: of lists of names the longest, or a text, which may match all."""
        if isinstance(self.domain, Range) or not any(isinstance(choice, tuple) for choice in self.domain):
            return self.mode
        return max(self.domain, key=lambda choice: len(choice) if isinstance(choice, tuple) else math.inf)

    def has(self, value: Choice) -> bool:
        """Whether the domain holds a value."""
        if isinstance(self.domain, Range):
            return is_number(value) and self.domain.contains(value)
        return value in self.domain

    def accepts(self, value: Choice) -> bool:
        """Whether a configuration may have the value. Numbers may lie outside, as a baseline's do."""
        return is_number(value) if self.numeric else value in self._shown

    def active(self, given: Mapping[str, Choice]) -> bool:
        """Whether it counts where the other fields have these values."""
        return all(name in given and given[name] in values for name, values in self.when)

    def place(self, value: Choice | None) -> float:
        """Where a number lies in the domain, 0 to 1; 0.5 for values that are none of it."""
        if isinstance(self.domain, Range):
            return self.domain.place(value) if is_number(value) else 0.5
        return self.domain.index(value) / max(1, len(self.domain) - 1) if value in self.domain else 0.5

    def uniform(self, rng: np.random.Generator) -> Choice:
        return self.domain.at(rng.uniform()) if isinstance(self.domain, Range) else _any(rng, self.domain)

    def sample(self, rng: np.random.Generator) -> Choice:
        """A value drawn from the prior: numbers by odds that fall from the preferred one to the farthest, others
        alike but for the preferred one."""
        at = int(rng.choice(len(self._weights), p=self._weights))
        return self.domain.at((at + rng.uniform()) / GRID) if isinstance(self.domain, Range) else self.domain[at]

    def density(self, value: Choice) -> float:
        """Density of :meth:`sample`; a probability where there are choices."""
        if isinstance(self.domain, Range):
            if not is_number(value):
                return 0.0
            cell = min(int(self.domain.place(value) * GRID), GRID - 1)
            return self._weights[cell] * GRID * self.uniform_density
        return self._weights[self.domain.index(value)] if value in self.domain else 0.0

    @property
    def uniform_density(self) -> float:
        domain = self.domain
        return 1 / (domain.high - domain.low) if isinstance(domain, Range) else 1 / len(domain)

    @cached_property
    def _weights(self) -> list[float]:
        """Of each choice, or of each cell of a range."""
        if isinstance(self.domain, Range):
            places = [(cell + 0.5) / GRID for cell in range(GRID)]
        elif self.numeric:
            places = [self.place(choice) for choice in self.domain]
        else:
            places = [float(choice != self.preferred) for choice in self.domain]
        if self.preferred is None:
            return [1 / len(places)] * len(places)
        middle = self.place(self.preferred) if self.numeric else 0.0
        reach = max(abs(place - middle) for place in places) or 1.0
        weights = [ODDS ** -(abs(place - middle) / reach) for place in places]
        return [weight / sum(weights) for weight in weights]

    def near(self, rng: np.random.Generator, current: Choice | None) -> Choice:
        """A value near that of a trial; any if it has none."""
        if isinstance(self.domain, Range):
            if not is_number(current):
                return self.uniform(rng)
            moved = self.domain.place(current) + NEIGHBOR_SD * float(rng.standard_normal())
            return self.domain.at(min(max(moved, 0.0), 1.0))
        if self.numeric:
            return held(near(rng, cast("list[float]", list(self.domain)), cast("float", current)))
        keep = current in self.domain and rng.uniform() < KEEP_CHOICE
        return cast("Choice", current) if keep else _any(rng, self.domain)

    @property
    def corners(self) -> Sequence[Choice]:
        """All choices, or the ends of a range."""
        return (self.domain.low, self.domain.high) if isinstance(self.domain, Range) else self.domain

    @cached_property
    def _shown(self) -> tuple[Choice, ...]:
        """All that a study may come upon of choices: the trainer's own value, which a baseline has, too."""
        assert not isinstance(self.domain, Range)
        outside = self.standard is not None and self.standard not in self.domain
        return (*self.domain, cast("Choice", self.standard)) if outside else self.domain

    @property
    def categories(self) -> tuple[Scalar, ...]:
        """What a study shows of choices that are no numbers; see :func:`written`."""
        return tuple(written(choice) for choice in self._shown)

    def informed(self, standard: Choice) -> Field:
        """This field with what the trainer does if nothing is said of it."""
        return replace(self, standard=held(standard))

    def recorded(self) -> object:
        """As plain data, which means the same in a specification and in Python."""
        further: dict[str, object] = {}
        if self.when:
            further[WHEN] = {name: [unheld(value) for value in values] for name, values in self.when}
        if self.prefer is not None:
            further[PREFER] = unheld(self.prefer)
        if self.standard is not None:
            further[STANDARD] = unheld(self.standard)
        if isinstance(self.domain, Range):
            return {"low": self.domain.low, "high": self.domain.high, "log": self.domain.log, **further}
        choices = [unheld(choice) for choice in self.domain]
        return {CHOICES_KEY: choices, **further} if further else choices


def written(value: Choice) -> Scalar:
    """A value as one that a study can hold: a list of names as JSON."""
    return json.dumps(value) if isinstance(value, tuple) else value


def read(value: Scalar) -> Choice:
    """The inverse of :func:`written`."""
    names = _names_in(value)
    return held(value) if names is None else names


def shown(value: Choice) -> str:
    """A value for people."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "+".join(value) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def field_of(name: str, given: object) -> Field:
    """The field of what a user writes.

    Raises:
        ValueError: it cannot be searched so.
    """
    if isinstance(given, Field):
        return given
    if given is None:
        raise ValueError(
            f"{name}: null is not allowed; leave {name} out, or write the value that the trainer takes for none"
        )
    rest: Mapping[str, object] = {}
    if isinstance(given, Mapping):
        known = (*RANGE_KEYS, CHOICES_KEY, WHEN, PREFER, STANDARD)
        for key in given:
            if key not in known:
                close = closest(str(key), known)
                raise ValueError(f"{name}: {key!r} is not known; {f'did you mean {close!r}?' if close else FORMS}")
        rest, given = given, given.get(CHOICES_KEY, {key: given[key] for key in RANGE_KEYS if key in given})
    found = Field(name, _domain(name, given))
    prefer, standard = (_value(name, rest[key]) if rest.get(key) is not None else None for key in (PREFER, STANDARD))
    if prefer is not None and not found.has(prefer):
        raise ValueError(f"{name}: prefer {unheld(prefer)!r} is not among its values, {_listed(found)}")
    return replace(found, when=_when(name, rest.get(WHEN)), prefer=prefer, standard=standard)


def in_order(fields: Iterable[Field]) -> dict[str, Field]:
    """Fields by name, each after those that it depends on, otherwise sorted.

    Raises:
        ValueError: a condition names no field, or a value that the field cannot have, or they lead in a circle.
    """
    known = {field.name: field for field in sorted(fields, key=lambda field: field.name)}
    for field in known.values():
        for name, values in field.when:
            if name not in known:
                close = closest(name, known)
                hint = f"did you mean {close!r}?" if close else f"it names another of {', '.join(known)}"
                raise ValueError(f"{field.name}: when names {name!r}, which is not among the fields; {hint}")
            for value in values:
                if not known[name].has(value):
                    raise ValueError(
                        f"{field.name}: when asks for {name} = {unheld(value)!r}, which it never has: "
                        f"{_listed(known[name])}"
                    )
    order: dict[str, Field] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise ValueError(f"{' -> '.join([*path, name])}: when leads in a circle; remove one of the conditions")
        for before, _ in known[name].when:
            visit(before, (*path, name))
        order.setdefault(name, known[name])

    for name in known:
        visit(name, ())
    return order


def _domain(name: str, given: object) -> Range | tuple[Choice, ...]:
    if isinstance(given, Range):
        return given
    if isinstance(given, tuple) and len(given) == 2 and all(is_number(number(each)) for each in given):
        given = {"low": given[0], "high": given[1]}
    if isinstance(given, Mapping):
        return _range(name, given)
    choices = [_value(name, each) for each in (given if isinstance(given, (list, tuple)) else [given])]
    if not choices:
        raise ValueError(f"{name}: no choice is given; {FORMS}")
    for at, choice in enumerate(choices):
        if choice in choices[:at]:
            raise ValueError(f"{name}: {unheld(choice)!r} is among its choices twice (true counts as 1, false as 0)")
    return tuple(sorted(choices, key=lambda each: cast("float", each)) if all(map(is_number, choices)) else choices)


def _range(name: str, given: Mapping[str, object]) -> Range | tuple[Choice, ...]:
    ends = {key: number(given[key]) for key in ("low", "high") if key in given}
    if len(ends) < 2 or not all(map(is_number, ends.values())):
        raise ValueError(f"{name}: {dict(given)!r} is not allowed; {FORMS}")
    try:
        found = range_of({**ends, **({"log": given["log"]} if "log" in given else {})}, log=False)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if not given.get("whole"):
        return found
    if not (found.low.is_integer() and found.high.is_integer() and found.high - found.low < MOST_WHOLE_NUMBERS):
        raise ValueError(
            f"{name}: the range ({found.low:g}, {found.high:g}) with whole: true goes from one whole number to "
            f"another, of at most {MOST_WHOLE_NUMBERS}"
        )
    return tuple(whole_numbers(int(found.low), int(found.high), found.log))


def _value(name: str, given: object) -> Choice:
    value = number(given) if isinstance(given, str) and given[:1] in "+-.0123456789" else given
    if is_number(value) and math.isfinite(value):
        return held(value)
    if isinstance(given, (bool, str)):
        if _names_in(given) is not None:
            raise ValueError(f"{name}: {given!r} is text; write the names as a list of their own")
        return given
    if isinstance(given, (list, tuple)) and all(isinstance(each, str) for each in given):
        return tuple(given)
    raise ValueError(
        f"{name}: {given!r} cannot be a choice; choices are numbers, text, true, false, and lists of names"
        + ("; leave null out, or write the value that the trainer takes for none" if given is None else "")
    )


def _when(name: str, given: object) -> tuple[tuple[str, tuple[Choice, ...]], ...]:
    if given is None:
        return ()
    if not isinstance(given, Mapping):
        raise ValueError(f"{name}: when is {given!r}; write the other field and its value, as in {{optim: adafactor}}")
    found = {
        str(other): tuple(_value(name, each) for each in (values if isinstance(values, list) else [values]))
        for other, values in given.items()
    }
    return tuple(sorted(found.items()))


def _listed(field: Field) -> str:
    if isinstance(field.domain, Range):
        return f"{field.domain.low:g} to {field.domain.high:g}"
    return ", ".join(str(unheld(choice)) for choice in field.domain)


def _names_in(value: object) -> tuple[str, ...] | None:
    """The names of a list that is written as JSON; None if it is none."""
    if not isinstance(value, str) or not value.startswith("["):
        return None
    try:
        found = json.loads(value)
    except ValueError:
        return None
    return tuple(found) if all(isinstance(each, str) for each in found) else None


def _any(rng: np.random.Generator, choices: Sequence[Choice]) -> Choice:
    return any_of(rng, choices)  # type: ignore[type-var]  # of any type
